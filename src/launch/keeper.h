#pragma once
#include <string>

#include "core/stop.h"
#include "launch/channel.h"
#include "launch/private_socket.h"
#include "launch/task.h"

namespace xdit::launch {

/// What a process that keeps ranks is made for.
struct Keeping {
  const PrivateSocket& place;
  const std::string& identity;  ///< of tasks that it takes
  const Models& models;
  double keep_s = 0;      ///< until a task names another time
  const StopToken& stop;  ///< set by the signals that end it
};

/// A process that keeps ranks, as its client knows it.
struct Kept {
  Channel channel;
  pid_t process;
};

/// Forks it: a session of its own, which holds nothing of this process but the socket. It listens when this
/// returns, serves one connection after another, the returned one first, and ends with its ranks after a stop
/// or `keep_s` without a task.
/// Its messages are a rank's (messages.h): it says some times a second that it lives, also to those who wait
/// for their turn. They come after {"taken": true}, or {"other": true} for a task of another
/// identity. It gets {"join": identity, "keep_s": seconds or null}, then {"task": ...}, {"stop": signal}. Who
/// joins with keep_s and is another's ends it.
[[nodiscard]] Kept start_keeper(const Keeping& keeping);

}  // namespace xdit::launch
