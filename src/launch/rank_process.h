#pragma once
#include <sys/types.h>

#include <vector>

#include "core/stop.h"
#include "launch/channel.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// Opens the rank library in this process and runs a rank. Throws Error.
void run_rank(const std::vector<pipeline::RankJob>& jobs, pipeline::Listener& listener,
              output::Report& report);

/// The life of a process that the launcher forked for a rank: runs it, tells the launcher (messages.h) what
/// happens and each `beat_s` that it lives, ends with its launcher. `stop` is the jobs'.
[[noreturn]] void rank_main(const std::vector<pipeline::RankJob>& jobs, StopToken& stop, Channel channel,
                            pid_t launcher, double beat_s);

}  // namespace xdit::launch
