#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/plan.h"
#include "parallel/plan_parameters.h"

/// Which weights the ranks of a plan hold and read.
namespace xdit::parallel {

[[nodiscard]] const models::Network& network_of(const models::Model& model, const std::string& component);
[[nodiscard]] const models::Network& denoiser_of(const models::Model& model);

/// The elements of each block's weights: what a token costs in it.
[[nodiscard]] std::vector<std::int64_t> block_costs(const models::Model& model);

/// Decides over how many ranks the blocks are spread (plan.shard), who reads what, and predicts every rank's
/// memory. Error(kMemory) when nothing that the user allows fits, with what would.
void spread_weights(Plan& plan, const config::RunSpec& spec, const models::Model& model,
                    const Machine& machine);

/// A network's parameters, as far as a rank holds them.
[[nodiscard]] std::vector<HeldParameter> held_by(const Plan& plan, const RankPlan& rank,
                                                 const models::Network& network);

/// Whether the plan holds it in e4m3.
[[nodiscard]] bool is_quantised(const Plan& plan, const models::Network& network, const HeldParameter& held);

/// The ranges of a network's memory that a rank stores, and who reads them.
struct Storage {
  std::vector<Range> blocks;   ///< and, where weights are sharded, pieces (sharded_units)
  std::vector<Range> outside;  ///< all else
};
[[nodiscard]] Storage storage_of(const Plan& plan, const RankPlan& rank, const models::Network& network);
/// Those of them that the rank reads itself.
[[nodiscard]] std::vector<Range> reads_of(const Plan& plan, const RankPlan& rank,
                                          const models::Network& network);

}  // namespace xdit::parallel
