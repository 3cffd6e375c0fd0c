#include "comm/shared_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace xdit::comm {
namespace {

[[noreturn]] void fail_shared(const std::string& doing, const std::string& where = {},
                              const std::string& fix = {}) {
  throw Error(ExitCode::kRank, fmt::format("{}: {}", doing, std::strerror(errno)), where, fix);
}

struct stat shared_status(const File& file) {
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0) fail_shared("cannot look at shared memory");
  return status;
}

}  // namespace

SharedMemory::SharedMemory(File descriptor, std::int64_t bytes)
    : descriptor_(std::move(descriptor)), bytes_(bytes) {
  void* const mapped = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED,
                              descriptor_.descriptor(), 0);
  if (mapped == MAP_FAILED) fail_shared(fmt::format("cannot map {} bytes of shared memory", bytes));
  data_ = static_cast<std::byte*>(mapped);
}

SharedMemory SharedMemory::create(std::int64_t bytes) {
  File file(::memfd_create("xdit-gen", MFD_CLOEXEC));
  if (file.descriptor() < 0) fail_shared("cannot create shared memory");
  if (::ftruncate(file.descriptor(), bytes) != 0) {
    fail_shared(fmt::format("cannot reserve {} bytes of shared memory", bytes));
  }
  return {std::move(file), bytes};
}

SharedMemory SharedMemory::attach(File descriptor) {
  const std::int64_t bytes = shared_status(descriptor).st_size;
  return {std::move(descriptor), bytes};
}

SharedMemory SharedMemory::open(const Address& address, const std::string& owner) {
  const std::string path = fmt::format("/proc/{}/fd/{}", address.process, address.descriptor);
  const std::string fix = "run all ranks as one user in one PID namespace (one container)";
  // O_NONBLOCK: in another namespace the path may name a pipe.
  File file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (file.descriptor() < 0) fail_shared("cannot open the shared memory of " + owner, path, fix);
  const struct stat status = shared_status(file);
  if (status.st_ino != address.inode || status.st_size != address.bytes) {
    throw Error(ExitCode::kRank, "this is not the shared memory of " + owner, path, fix);
  }
  return {std::move(file), address.bytes};
}

SharedMemory::Address SharedMemory::address() const {
  return {::getpid(), descriptor(), shared_status(descriptor_).st_ino, bytes_};
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : descriptor_(std::move(other.descriptor_)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) ::munmap(data_, static_cast<std::size_t>(bytes_));
}

}  // namespace xdit::comm
