#include "launch/channel.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

namespace xdit::launch {

using nlohmann::json;

std::pair<Channel, Channel> Channel::make() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    throw Error(ExitCode::kRank, std::string("cannot start a rank: ") + std::strerror(errno), {},
                "a higher limit of open files (ulimit -n)");
  return {Channel(ends[0]), Channel(ends[1])};
}

void Channel::send(const json& message) const {
  const std::string line = message.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t count = ::send(descriptor(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return;
    sent += static_cast<std::size_t>(count);
  }
}

bool Channel::receive(std::vector<json>& messages) {
  std::array<char, std::size_t{1} << 16U> bytes{};
  const ssize_t count = ::recv(descriptor(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  if (count == 0) return false;
  const std::size_t searched = partial_.size();
  partial_.append(bytes.data(), static_cast<std::size_t>(count));
  std::size_t begin = 0;
  for (std::size_t end = partial_.find('\n', searched); end != std::string::npos;
       end = partial_.find('\n', begin)) {
    messages.push_back(json::parse(partial_.begin() + static_cast<std::ptrdiff_t>(begin),
                                   partial_.begin() + static_cast<std::ptrdiff_t>(end)));
    begin = end + 1;
  }
  partial_.erase(0, begin);
  return true;
}

}  // namespace xdit::launch
