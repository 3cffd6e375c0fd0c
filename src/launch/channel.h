#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"

namespace xdit::launch {

/// One end of a stream of messages between the launcher and a rank process: JSON, one a line.
class Channel {
 public:
  /// The launcher's end and the rank's.
  [[nodiscard]] static std::pair<Channel, Channel> make();

  /// Blocks while the other end's buffer is full; does nothing when nobody is there.
  void send(const nlohmann::json& message) const;
  /// Appends the whole messages that have come, without waiting. False once the other end is closed.
  [[nodiscard]] bool receive(std::vector<nlohmann::json>& messages);
  [[nodiscard]] int descriptor() const { return socket_.descriptor(); }

 private:
  explicit Channel(int descriptor) : socket_(descriptor) {}

  File socket_;
  std::string partial_;  // a line that has not ended yet
};

}  // namespace xdit::launch
