#pragma once
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/file.h"

namespace xdit::comm {

/// A mapped memfd: shared memory without a name, gone with the last process that has it. Faults are
/// Error(kRank).
class SharedMemory {
 public:
  /// How another process finds it while descriptor() is open. Plain bytes.
  struct Address {
    pid_t process;
    int descriptor;
    std::uint64_t inode;  ///< proves that both mean one file: PID namespaces may differ
    std::int64_t bytes;
  };

  static SharedMemory create(std::int64_t bytes);  ///< zeroed
  static SharedMemory attach(File descriptor);
  /// Through /proc/PID/fd: of a process of the same user and PID namespace. `owner` names it in errors.
  static SharedMemory open(const Address& address, const std::string& owner);

  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&&) = delete;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::int64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_.descriptor(); }
  [[nodiscard]] Address address() const;
  void close_descriptor() { descriptor_ = File(-1); }  ///< the mapping stays

 private:
  SharedMemory(File descriptor, std::int64_t bytes);

  File descriptor_;
  std::byte* data_;
  std::int64_t bytes_;
};

}  // namespace xdit::comm
