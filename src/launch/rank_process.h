#pragma once
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/job.h"
#include "launch/channel.h"
#include "launch/task.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// An entry of the rank library, which this process opens. Throws Error.
[[nodiscard]] void* rank_entry(const char* name);
/// This process is a rank then. Throws Error.
[[nodiscard]] std::unique_ptr<pipeline::Rank> make_rank();

/// What a rank's process is born with.
struct Birth {
  std::int64_t rank = 0;
  const Models& models;                                   ///< open
  std::string weights;                                    ///< weights_text of them
  std::array<std::shared_ptr<const comm::Job>, 2> peers;  ///< of both stages; null: they exchange nothing
  double beat_s = 1;
};

/// The life of a process that the launcher forked for a rank: works on the tasks that come over the channel,
/// tells (messages.h) what happens and, while it works, each `beat_s` that it lives; ends with its launcher.
[[noreturn]] void rank_main(const Birth& birth, Channel channel, pid_t launcher);

}  // namespace xdit::launch
