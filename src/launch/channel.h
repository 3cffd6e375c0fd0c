#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"

namespace xdit::launch {

/// One end of a stream of messages between two processes: CBOR (RFC 8949), each after its length. Texts keep
/// whatever bytes they have.
class Channel {
 public:
  /// The launcher's end and the rank's.
  [[nodiscard]] static std::pair<Channel, Channel> make();
  explicit Channel(File socket) : socket_(std::move(socket)) {}

  /// Blocks while the other end's buffer is full, as long as the socket does; then, or when nobody is there,
  /// the channel is closed.
  void send(const nlohmann::json& message) const;
  /// Appends the whole messages that have come, without waiting. False once the channel is closed.
  [[nodiscard]] bool receive(std::vector<nlohmann::json>& messages);
  [[nodiscard]] int descriptor() const { return socket_.descriptor(); }

 private:
  File socket_;
  std::string partial_;  // a message whose end has not come yet
};

}  // namespace xdit::launch
