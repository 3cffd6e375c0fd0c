#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <functional>
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
  /// Collective. Loads to options' device in options' dtype. `shared`: also what several ranks hold.
  NetworkLoader(const Plan& plan, const RankPlan& rank, const models::Model& model, Spread& spread,
                const at::TensorOptions& options, bool shared = true);

  /// Memory for the weights of a network, and what brings them. Until then they hold anything.
  struct Arriving {
    std::unique_ptr<nn::Weights> weights;
    std::function<void()> read;      ///< this rank's share; from any thread
    std::function<void()> exchange;  ///< then, collective over the ranks that hold the network: the others'
  };
  [[nodiscard]] Arriving expect(const std::string& component);
  [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }  ///< from files, of all networks

 private:
  void read_share(const Loading& loading, const WeightMemory& memory);
  void exchange_shares(const Loading& loading, const WeightMemory& memory);
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
  std::atomic<std::uint64_t> bytes_read_{0};
};

}  // namespace xdit::parallel
