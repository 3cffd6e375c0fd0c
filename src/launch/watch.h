#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/in_order.h"
#include "launch/nvml.h"
#include "output/report.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// Passes on what a listener is told, pictures in their order, and reads GPUs meanwhile, some times a second.
class Watch final : public pipeline::Listener {
 public:
  /// `pictures`: in their order. `gpus`: by UUID. `started_s`: time 0 of the readings.
  Watch(pipeline::Listener& to, std::vector<std::int64_t> pictures, std::vector<std::string> gpus,
        double started_s)
      : to_(to),
        pictures_([&to](std::int64_t index) { to.picture(index); }, std::move(pictures)),
        gpus_(std::move(gpus)),
        started_s_(started_s) {}

  void begin(std::string_view phase, std::int64_t steps) override {
    read();
    to_.begin(phase, steps);
  }
  void advance(std::int64_t done) override {
    read();
    to_.advance(done);
  }
  void finish() override {
    read();
    to_.finish();
  }
  void picture(std::int64_t index) override { pictures_.settle(index, /*there=*/true); }
  void warn(std::string_view line) override { to_.warn(line); }
  void tick() override {
    read();
    to_.tick();
  }
  void failed(std::int64_t picture, const Error& why) override {
    to_.failed(picture, why);
    pictures_.settle(picture, /*there=*/false);
  }
  void end() { pictures_.end(); }  ///< the run failed

  [[nodiscard]] const std::vector<output::Reading>& readings() const { return readings_; }

 private:
  void read();

  pipeline::Listener& to_;
  InOrder pictures_;
  std::vector<std::string> gpus_;
  double started_s_;
  double read_s_ = 0;           ///< when it was last
  std::optional<Nvml> nvml_{};  ///< opened when ranks have been started: they must not inherit it
  std::vector<output::Reading> readings_{};
};

}  // namespace xdit::launch
