#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "nn/weights.h"
#include "parallel/load.h"
#include "parallel/plan.h"
#include "parallel/spread.h"
#include "parallel/weight_exchange.h"

namespace xdit::parallel {

/// Brings the weights that the plan gives this rank.
class NetworkLoader {
 public:
  /// Collective. Loads to options' device in options' dtype.
  NetworkLoader(const Plan& plan, const RankPlan& rank, const models::Model& model, Spread& spread,
                const at::TensorOptions& options);

  /// Collective over the ranks that hold the network. `bytes_read` counts up.
  [[nodiscard]] std::unique_ptr<nn::Weights> load(const std::string& component, std::uint64_t& bytes_read);

 private:
  void fill(const Loading& loading, const WeightMemory& memory, std::uint64_t& bytes_read);
  void exchange(std::optional<WeightExchange>& with, const std::vector<Range>& stored, const Readers& readers,
                const WeightMemory& memory, const at::TensorOptions& options);

  const Plan& plan_;
  const RankPlan& rank_;
  const models::Model& model_;
  Spread& spread_;
  at::TensorOptions options_;
  std::optional<WeightExchange> blocks_;
  std::optional<WeightExchange> outside_;  ///< the denoiser's
  std::optional<WeightExchange> others_;
};

}  // namespace xdit::parallel
