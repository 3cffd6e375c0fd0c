#pragma once
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "launch/channel.h"
#include "launch/messages.h"
#include "pipeline/rank.h"

namespace xdit::launch {

/// Tells over a channel what a listener is told. Any thread may.
class Teller final : public pipeline::Listener {
 public:
  explicit Teller(Channel& channel) : channel_(channel) {}

  void begin(std::string_view phase, std::int64_t steps) override {
    tell({{"begin", phase}, {"steps", steps}});
  }
  void advance(std::int64_t done) override { tell({{"advance", done}}); }
  void finish() override { tell({{"finish", true}}); }
  void picture(std::int64_t index) override { tell({{"picture", index}}); }
  void warn(std::string_view line) override { tell({{"warn", line}}); }
  void failed(std::int64_t picture, const Error& why) override {
    nlohmann::json message = error_message(why);
    message["failed"] = picture;
    tell(message);
  }

  void tell(const nlohmann::json& message) {
    const std::lock_guard lock(sending_);
    channel_.send(message);
  }

 private:
  Channel& channel_;
  std::mutex sending_;
};

}  // namespace xdit::launch
