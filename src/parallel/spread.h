#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>
#include <optional>

#include "comm/group.h"
#include "comm/job.h"
#include "models/registry.h"
#include "nn/attention.h"
#include "nn/built_kernels.h"
#include "nn/linear.h"
#include "nn/spatial.h"
#include "parallel/loop.h"
#include "parallel/plan.h"
#include "parallel/split_guide.h"
#include "parallel/split_spatial.h"

namespace xdit::parallel {

/// A picture over ranks, as one of them sees it: an implementation of each seam that the plan asks for.
class Spread {
 public:
  struct Run {
    const Plan& plan;
    std::int64_t rank = 0;
    const models::Model& model;
    const models::VaeConfig& vae;
    std::int64_t branches = 1;  ///< of a guided step
    std::shared_ptr<const comm::Job> peers;
    std::chrono::nanoseconds timeout{};
    at::TensorOptions options;  ///< dtype and device of activations
    nn::BuiltKernels built{};   ///< shared with other runs
  };
  /// Collective over all ranks of the plan, idle ones included, where any of them exchange something.
  explicit Spread(const Run& run);

  [[nodiscard]] nn::Attention& attention() { return *attention_; }
  [[nodiscard]] const nn::Linears& linears() const { return *linears_; }
  [[nodiscard]] Guide& guide() { return *guide_; }
  [[nodiscard]] Loop& loop() { return *loop_; }
  [[nodiscard]] const nn::Spatial& patches() const { return *patches_; }  ///< a UNet's rows
  /// Rows of the decoder's.
  [[nodiscard]] const nn::Spatial& spatial() const;
  /// The picture [C, H, W] on the rank that writes it, from each rank's decoded rows of it.
  [[nodiscard]] at::Tensor whole_picture(const at::Tensor& rows) const {
    return slabs_ ? slabs_->collect(rows) : rows;
  }
  /// The picture's latents in the loop's layout, [T, C], from each rank's tokens of it.
  [[nodiscard]] at::Tensor all_tokens(const at::Tensor& latents) {
    return gather_ ? (*gather_)(latents) : latents;
  }
  /// Groups of the plan's ranks; null where this rank is alone.
  [[nodiscard]] comm::Group* world() { return get(patient_); }
  [[nodiscard]] comm::Group* sharding() { return get(sharding_); }  ///< RankPlan::sharding
  /// RankPlan::block_readers, and readers of the denoiser and of what every rank with pictures holds.
  [[nodiscard]] comm::Group* block_readers() { return get(block_readers_); }
  [[nodiscard]] comm::Group* outside_readers() { return get(outside_readers_); }
  [[nodiscard]] comm::Group* readers() { return get(readers_); }
  /// Returns when no rank reads this one's memory any more. The device's work is done. Collective.
  void finish();
  /// Throws what an exchange has met; call it when the device's work is done and before its result is used.
  void check() const {
    if (world_) world_->check();
  }
  /// What this rank put to others, and its buffers take; null where it exchanges nothing.
  [[nodiscard]] comm::Use* use() const { return world_ ? &world_->use() : nullptr; }

 private:
  [[nodiscard]] static comm::Group* get(std::optional<comm::Group>& group) {
    return group && group->size() > 1 ? &*group : nullptr;
  }
  void make_groups(const Run& run);
  void split_tokens(const Run& run);
  void split_rows(const Run& run);

  std::optional<comm::Group> world_;
  std::optional<comm::Group> patient_;   ///< of all, too; waits for its members without end
  std::optional<comm::Group> tokens_;    ///< holds the tokens of a picture together
  std::optional<comm::Group> branches_;  ///< the two branches of a guided step
  std::optional<comm::Group> stages_;    ///< the blocks
  std::optional<comm::Group> tensor_;    ///< the weights of each block
  std::optional<comm::Group> sharding_;
  std::optional<comm::Group> block_readers_;
  std::optional<comm::Group> outside_readers_;
  std::optional<comm::Group> readers_;
  std::optional<comm::Group> picture_;  ///< makes a picture together
  std::unique_ptr<nn::Attention> attention_;
  std::unique_ptr<nn::Linears> linears_;
  std::unique_ptr<Guide> guide_;
  std::unique_ptr<Loop> loop_;
  std::optional<TokenGather> gather_;
  nn::LocalSpatial whole_;
  std::unique_ptr<nn::Spatial> patches_;
  std::unique_ptr<SplitSpatial> slabs_;
};

}  // namespace xdit::parallel
