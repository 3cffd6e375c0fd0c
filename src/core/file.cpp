#include "core/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <utility>

namespace xdit {
namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(ExitCode code, const std::string& action, const fs::path& path, int error,
                       const std::string& fix = {}) {
  throw Error(code, fmt::format("cannot {}: {}", action, std::strerror(error)), path.string(), fix);
}

constexpr const char* kOtherFolder = "a folder that you may write to, with -o";

/// A new file in `folder`, unnamed where the file system can, else under a random name. The kernel applies
/// umask.
class TemporaryFile {
 public:
  TemporaryFile(const fs::path& folder, const fs::path& path) : named_(folder / random_name()) {
    const bool proc = ::access("/proc/self/fd", X_OK) == 0;  // what gives an unnamed file its name
    int descriptor = proc ? ::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666) : -1;
    if (descriptor < 0) {
      descriptor = ::open(named_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
      if (descriptor < 0) fail(ExitCode::kOutput, "write", path, errno, kOtherFolder);
      has_name_ = true;
    }
    file_ = File(descriptor);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (has_name_) ::unlink(named_.c_str());
  }

  [[nodiscard]] int descriptor() const { return file_.descriptor(); }

  /// Gives the file one more name, never replacing. 0 or errno.
  [[nodiscard]] int link(const fs::path& to) const {
    const std::string from =
        has_name_ ? named_.string() : fmt::format("/proc/self/fd/{}", file_.descriptor());
    return ::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
  }
  /// Moves the file to `to`; RENAME_NOREPLACE or 0. 0 or errno.
  [[nodiscard]] int move(const fs::path& to, unsigned flags) {
    if (!has_name_) {
      if (const int error = link(named_)) return error;
      has_name_ = true;
    }
    const int failed = flags == 0 ? ::rename(named_.c_str(), to.c_str())
                                  : ::renameat2(AT_FDCWD, named_.c_str(), AT_FDCWD, to.c_str(), flags);
    if (failed != 0) return errno;
    has_name_ = false;
    return 0;
  }

 private:
  static std::string random_name() {
    std::random_device random;
    return fmt::format(".xdit-gen-{:08x}{:08x}", random(), random());
  }

  File file_{-1};
  fs::path named_;
  bool has_name_ = false;
};

void write_all(int descriptor, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(descriptor, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0)
      fail(ExitCode::kOutput, "write", path, errno, "free space there, or another folder with -o");
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

}  // namespace

File File::open_read(const fs::path& path, ExitCode code) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(code, "open", path, errno);
  return File(descriptor, path, code);
}

File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)), code_(other.code_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  std::swap(code_, other.code_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::uint64_t File::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail(code_, "read", path_, errno);
  if (!S_ISREG(status.st_mode)) throw Error(code_, "not a regular file", path_.string());
  return static_cast<std::uint64_t>(status.st_size);
}

std::size_t File::read_at(std::span<std::byte> to, std::uint64_t offset) const {
  std::size_t done = 0;
  while (done < to.size()) {
    const ssize_t got =
        ::pread(descriptor_, to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
    if (got == 0) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(code_, "read", path_, errno);
    done += static_cast<std::size_t>(got);
  }
  return done;
}

std::string read_file(const fs::path& path, ExitCode code, std::size_t limit) {
  const File file = File::open_read(path, code);
  const std::uint64_t size = file.size();
  if (size > limit)
    throw Error(code, fmt::format("{} bytes: larger than the limit of {}", size, limit), path.string());
  std::string text(static_cast<std::size_t>(size), '\0');
  text.resize(file.read_at(std::as_writable_bytes(std::span(text)), 0));
  return text;
}

void write_file_atomically(const fs::path& path, std::span<const std::string_view> parts, bool overwrite) {
  const auto refuse_existing = [&] {
    throw Error(ExitCode::kOutput, "the file exists", path.string(),
                "--overwrite, or another -o, e.g. -o 'out/{seed}.png'");
  };
  std::error_code ignored;
  if (!overwrite && fs::exists(fs::symlink_status(path, ignored))) refuse_existing();
  const fs::file_status target = fs::status(path, ignored);  // as root, a device must not be replaced
  if (!path.has_filename() || (fs::exists(target) && !fs::is_regular_file(target)))
    throw Error(ExitCode::kOutput, "not a regular file", path.string(), "the name of a file");
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail(ExitCode::kOutput, "create the folder", folder, error.value(), kOtherFolder);

  TemporaryFile temporary(folder, path);
  for (const std::string_view part : parts) write_all(temporary.descriptor(), part, path);
  if (::fsync(temporary.descriptor()) != 0) fail(ExitCode::kOutput, "write", path, errno);
  int failed = overwrite ? temporary.move(path, 0) : temporary.link(path);
  if (!overwrite && (failed == EPERM || failed == EOPNOTSUPP || failed == ENOSYS))  // no hard links there
    failed = temporary.move(path, RENAME_NOREPLACE);
  if (!overwrite && failed == EEXIST) refuse_existing();
  if (failed != 0) fail(ExitCode::kOutput, "write", path, failed);
  const File directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.descriptor() >= 0) ::fsync(directory.descriptor());  // the name survives a power cut
}

void write_file_atomically(const fs::path& path, std::string_view bytes, bool overwrite) {
  write_file_atomically(path, std::span(&bytes, 1), overwrite);
}

}  // namespace xdit
