#pragma once
#include <sys/types.h>

#include "core/stop.h"
#include "launch/channel.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// Opens the rank library in this process and runs a rank. Throws Error.
void run_rank(const pipeline::RankJob& job, pipeline::Listener& listener, output::Report& report);

/// The life of a process that the launcher forked for a rank: runs it, tells the launcher (messages.h) what
/// happens and each `beat_s` that it lives, ends with its launcher. `stop` is the job's.
[[noreturn]] void rank_main(const pipeline::RankJob& job, StopToken& stop, Channel channel, pid_t launcher,
                            double beat_s);

}  // namespace xdit::launch
