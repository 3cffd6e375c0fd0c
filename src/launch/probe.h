#pragma once
#include <functional>

#include "core/stop.h"
#include "pipeline/probe.h"

namespace xdit::launch {

/// Has a process of its own try the first `gpus` that CUDA shows; `meanwhile` is called ten times a second.
/// Error(kRank) when it dies or takes longer than `limit_s`, and what the rank library throws.
[[nodiscard]] pipeline::Probe try_gpus(std::size_t gpus, double limit_s, const StopToken& stop,
                                       const std::function<void()>& meanwhile);

}  // namespace xdit::launch
