#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace xdit {

/// An open file descriptor.
class File {
 public:
  /// Opens for reading, close-on-exec. Throws `code` with the system's reason.
  static File open_read(const std::filesystem::path& path, ExitCode code);
  explicit File(int descriptor, std::filesystem::path path = {}, ExitCode code = ExitCode::kInternal) noexcept
      : descriptor_(descriptor), path_(std::move(path)), code_(code) {}
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] std::uint64_t size() const;  ///< bytes; throws if it is not a regular file
  /// Fills `to` from `offset`. Returns bytes read: fewer only at the end of the file.
  [[nodiscard]] std::size_t read_at(std::span<std::byte> to, std::uint64_t offset) const;

 private:
  int descriptor_ = -1;
  std::filesystem::path path_;  // for errors
  ExitCode code_;
};

/// The whole file, at most `limit` bytes.
[[nodiscard]] std::string read_file(const std::filesystem::path& path, ExitCode code,
                                    std::size_t limit = std::size_t{1} << 30U);

/// Writes through a temporary file in the same folder, fsyncs, then renames: readers see all or nothing.
/// Where the file system has unnamed files, not even kill -9 leaves one behind. Creates missing folders.
/// Without `overwrite`, an existing `path` is an error that names --overwrite; with it, a symbolic link is
/// replaced, and anything that is no regular file refused. All faults are Error(kOutput). Ignore SIGXFSZ to
/// get an Error at a file size limit too.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::string_view> parts,
                           bool overwrite);
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes, bool overwrite);

}  // namespace xdit
