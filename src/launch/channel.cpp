#include "launch/channel.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>

namespace xdit::launch {

using nlohmann::json;

std::pair<Channel, Channel> Channel::make() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    throw Error(ExitCode::kRank, std::string("cannot start a rank: ") + std::strerror(errno), {},
                "a higher limit of open files (ulimit -n)");
  return {Channel(File(ends[0])), Channel(File(ends[1]))};
}

void Channel::send(const json& message) const {
  std::string bytes(sizeof(std::uint64_t), '\0');
  json::to_cbor(message, bytes);
  const std::uint64_t length = bytes.size() - sizeof length;
  std::memcpy(bytes.data(), &length, sizeof length);
  for (std::size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = ::send(descriptor(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      ::shutdown(descriptor(), SHUT_RDWR);  // half a message may have gone
      return;
    }
    sent += static_cast<std::size_t>(count);
  }
}

bool Channel::receive(std::vector<json>& messages) {
  std::array<char, std::size_t{1} << 16U> bytes{};
  const ssize_t count = ::recv(descriptor(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  if (count == 0) return false;
  partial_.append(bytes.data(), static_cast<std::size_t>(count));
  std::size_t begin = 0;
  for (std::uint64_t length = 0; partial_.size() - begin >= sizeof length; begin += length) {
    std::memcpy(&length, partial_.data() + begin, sizeof length);
    if (partial_.size() - begin - sizeof length < length) break;
    begin += sizeof length;
    const auto* const message = partial_.data() + begin;
    messages.push_back(json::from_cbor(message, message + length));
  }
  partial_.erase(0, begin);
  return true;
}

}  // namespace xdit::launch
