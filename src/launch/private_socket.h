#pragma once
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <optional>

#include "core/file.h"

namespace xdit::launch {

/// The place of one socket in a folder that nobody but this user can enter. Faults are Error(kOutput).
class PrivateSocket {
 public:
  /// In XDG_RUNTIME_DIR/xdit-gen, else /tmp/xdit-gen-UID, read with `variable` (as std::getenv). A folder
  /// that is not this user's, or that others may enter, is refused; `create`: one that is not there is made.
  PrivateSocket(const std::function<const char*(const char*)>& variable, bool create);

  /// Held while the socket is looked for, bound or removed; given back with the file.
  [[nodiscard]] File lock() const;
  /// Nothing when nobody listens, or somebody else does.
  [[nodiscard]] std::optional<File> connect() const;
  /// Bound with mode 0600, in place of one that nobody listens at; the caller listens.
  [[nodiscard]] File bind() const;
  void remove() const noexcept;

 private:
  std::filesystem::path folder_;
  std::filesystem::path path_;
};

/// The next of this user's processes that connects to `listening`; nothing when it is another's or has gone.
[[nodiscard]] std::optional<File> accept_own(const File& listening);

/// The process at the other end; of one that connected, the one that listens.
[[nodiscard]] pid_t peer_process(const File& connection);

}  // namespace xdit::launch
