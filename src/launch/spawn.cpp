#include "launch/spawn.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "launch/rank_process.h"
#include "launch/supervisor.h"

namespace xdit::launch {

void spawn(const std::vector<pipeline::RankJob>& jobs, std::int64_t cores, pipeline::Listener& listener,
           const StopToken& stop, output::Report& report) {
  const double timeout_s = jobs.front().spec.runtime.timeout_s;
  const auto ranks = static_cast<std::int64_t>(jobs.front().plan.ranks.size());
  Supervisor supervisor(timeout_s, listener, stop);
  for (std::int64_t rank = 0; rank < ranks; ++rank)
    supervisor.start([&](Channel channel, pid_t launcher) {
      if (ranks > 1)  // LibTorch would give each rank every core; a number that the user set stays
        ::setenv("OMP_NUM_THREADS", std::to_string(std::max<std::int64_t>(1, cores / ranks)).c_str(), 0);
      StopToken own_stop;
      std::vector<pipeline::RankJob> own;
      own.reserve(jobs.size());
      for (const pipeline::RankJob& job : jobs)
        own.push_back({.spec = job.spec,
                       .model = job.model,
                       .plan = job.plan,
                       .rank = rank,
                       .model_hash = job.model_hash,
                       .paths = job.paths,
                       .stop = own_stop,
                       .peers = job.peers,
                       .meeting = job.meeting,
                       .stage = job.stage,
                       .named = job.named,
                       .last = job.last,
                       .started_s = job.started_s});
      rank_main(own, own_stop, std::move(channel), launcher, std::min(1.0, timeout_s / 4));
    });
  supervisor.wait(report);
}

}  // namespace xdit::launch
