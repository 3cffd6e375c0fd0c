#include "launch/private_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;

constexpr timeval kPatience{.tv_sec = 10, .tv_usec = 0};  // with an end that is stopped

[[noreturn]] void fail_socket(const std::string& what, const fs::path& where, const std::string& fix = {}) {
  throw Error(ExitCode::kOutput, fmt::format("{}: {}", what, std::strerror(errno)), where.string(), fix);
}

sockaddr_un address_of(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string text = path.string();
  if (text.size() >= sizeof address.sun_path)
    throw Error(ExitCode::kOutput,
                fmt::format("the path of a socket has {} bytes at most", sizeof address.sun_path - 1), text,
                "a shorter XDG_RUNTIME_DIR");
  std::memcpy(address.sun_path, text.c_str(), text.size() + 1);
  return address;
}

File new_socket() {
  File socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.descriptor() < 0) fail_socket("cannot make a socket", {});
  return socket;
}

ucred peer_of(const File& connection) {
  ucred peer{.pid = 0, .uid = static_cast<uid_t>(-1), .gid = static_cast<gid_t>(-1)};
  socklen_t size = sizeof peer;
  static_cast<void>(::getsockopt(connection.descriptor(), SOL_SOCKET, SO_PEERCRED, &peer, &size));
  return peer;
}

std::optional<File> own(File connection) {
  if (peer_of(connection).uid != ::geteuid()) return std::nullopt;
  static_cast<void>(
      ::setsockopt(connection.descriptor(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof kPatience));
  return connection;
}

void check_private(const fs::path& folder) {
  struct stat status {};
  if (::lstat(folder.c_str(), &status) != 0) fail_socket("cannot look at the folder of a socket", folder);
  if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 077U) != 0)
    throw Error(ExitCode::kOutput, "others can reach it: it must be this user's folder, with mode 0700",
                folder.string(), "remove it, or set XDG_RUNTIME_DIR to a folder of yours");
}

}  // namespace

PrivateSocket::PrivateSocket(const std::function<const char*(const char*)>& variable, bool create) {
  const char* const runtime = variable("XDG_RUNTIME_DIR");
  folder_ = runtime != nullptr && *runtime == '/' ? fs::path(runtime) / "xdit-gen"
                                                  : fs::path(fmt::format("/tmp/xdit-gen-{}", ::geteuid()));
  path_ = folder_ / "kept";
  if (create && ::mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST)
    fail_socket("cannot make a folder for a socket", folder_, "set XDG_RUNTIME_DIR to a folder of yours");
  check_private(folder_);
}

File PrivateSocket::lock() const {
  const fs::path path = folder_ / "lock";
  File file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.descriptor() < 0) fail_socket("cannot open", path);
  while (::flock(file.descriptor(), LOCK_EX) != 0)
    if (errno != EINTR) fail_socket("cannot lock", path);
  return file;
}

std::optional<File> PrivateSocket::connect() const {
  const sockaddr_un address = address_of(path_);
  File socket = new_socket();
  if (::connect(socket.descriptor(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return std::nullopt;
  return own(std::move(socket));
}

File PrivateSocket::bind() const {
  const sockaddr_un address = address_of(path_);
  remove();
  File socket = new_socket();
  const mode_t before = ::umask(0177);
  const int bound = ::bind(socket.descriptor(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  ::umask(before);
  if (bound != 0) fail_socket("cannot bind a socket", path_);
  return socket;
}

void PrivateSocket::remove() const noexcept {
  ::unlink(path_.c_str());
}

std::optional<File> accept_own(const File& listening) {
  File connection(::accept4(listening.descriptor(), nullptr, nullptr, SOCK_CLOEXEC));
  if (connection.descriptor() < 0) return std::nullopt;
  return own(std::move(connection));
}

pid_t peer_process(const File& connection) {
  return peer_of(connection).pid;
}

}  // namespace xdit::launch
