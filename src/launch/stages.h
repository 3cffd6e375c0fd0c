#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "launch/task.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// Who finishes the pictures that `plan` begins, on the same ranks; none without a refiner. Error as
/// make_plan's.
[[nodiscard]] std::optional<parallel::Plan> plan_refiner(const config::RunSpec& spec, const Models& models,
                                                         const parallel::Plan& plan,
                                                         const parallel::Machine& machine);

/// Whether both models find room beside each other on every device.
[[nodiscard]] bool fit_together(const config::RunSpec& spec, const parallel::Plan& plan,
                                const std::optional<parallel::Plan>& refiner_plan,
                                const parallel::Machine& machine);

/// `job`, and behind it the refiner's, whose ranks share `peers`.
[[nodiscard]] std::vector<pipeline::RankJob> stages_of(pipeline::RankJob job, const Models& models,
                                                       const std::optional<parallel::Plan>& refiner_plan,
                                                       std::shared_ptr<const comm::Job> peers);

}  // namespace xdit::launch
