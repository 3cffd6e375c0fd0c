#pragma once
#include <optional>

#include "launch/ranks.h"

namespace xdit::launch {

/// Ranks that outlive this process, behind this user's socket. Those that stay are joined where they fit (the
/// same files, devices, grid and build); else, with `keep_s`, they are ended and others started, which end
/// after so many seconds without a task; without it, ranks of this process's own make the pictures.
class KeptRanks final : public Makers {
 public:
  explicit KeptRanks(std::optional<double> keep_s) : keep_s_(keep_s) {}

  void make(const Task& task, const Models& models, const parallel::Plan& plan, pipeline::Listener& listener,
            const StopToken& stop, output::Report& report) override;

 private:
  std::optional<double> keep_s_;
};

/// Ends ranks that stay and returns when they are gone; false when there are none.
bool end_kept_ranks();

}  // namespace xdit::launch
