#pragma once
#include <array>
#include <memory>
#include <optional>
#include <string>

#include "comm/job.h"
#include "core/stop.h"
#include "launch/supervisor.h"
#include "launch/task.h"
#include "models/registry.h"
#include "output/report.h"
#include "parallel/plan.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// What the processes of a task's ranks cannot change: devices, GPUs, timeout.
[[nodiscard]] std::string seats_of(const Task& task, const parallel::Plan& plan);

/// Who makes the pictures of a task.
class Makers {
 public:
  Makers() = default;
  Makers(const Makers&) = delete;
  Makers& operator=(const Makers&) = delete;
  virtual ~Makers() = default;

  /// Adds phases and use to `report`. `models` and `plan` are the task's. Throws Error; what is finished
  /// stays.
  virtual void make(const Task& task, const Models& models, const parallel::Plan& plan,
                    pipeline::Listener& listener, const StopToken& stop, output::Report& report) = 0;
};

/// Processes of this one, one a rank of the plan. They stay until a task that says it is the last; those of
/// other devices, or of which one is lost, are replaced at the next task.
class Ranks final : public Makers {
 public:
  /// `stay`: as Supervisor's; and when one is lost in a task, others make the rest of it, but once. `aside`
  /// is looked at while they work.
  explicit Ranks(bool stay = false, const Aside& aside = kNone) : stay_(stay), aside_(aside) {}

  void make(const Task& task, const Models& models, const parallel::Plan& plan, pipeline::Listener& listener,
            const StopToken& stop, output::Report& report) override;

  /// Whose failure ended the last task.
  [[nodiscard]] std::optional<std::int64_t> culprit() const {
    return supervisor_ ? supervisor_->culprit() : std::nullopt;
  }

 private:
  void work(const Task& task, const Models& models, const parallel::Plan& plan, pipeline::Listener& listener,
            const StopToken& stop, output::Report& report);
  void start(const Task& task, const Models& models, const parallel::Plan& plan);

  static const Aside kNone;
  bool stay_;
  const Aside& aside_;
  std::string seats_;                                ///< devices of the ranks
  std::array<std::shared_ptr<comm::Job>, 2> peers_;  ///< of both stages; null: they exchange nothing
  std::optional<Supervisor> supervisor_;
};

}  // namespace xdit::launch
