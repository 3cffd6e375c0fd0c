#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <span>

#include "core/file.h"
#include "launch/clock.h"
#include "launch/health.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBlock = std::size_t{8} << 20U;
constexpr std::size_t kMost = 16;  // blocks that are read
constexpr std::size_t kPage = 4096;

// Bytes that no file system makes smaller (xorshift, Marsaglia 2003).
void fill(std::span<std::byte> block, std::uint64_t state) {
  for (std::byte& byte : block) {
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    byte = static_cast<std::byte>(state);
  }
}

// A file without a name in a folder, or -1.
int scratch_file(const fs::path& folder, std::span<std::byte> block) {
  const int file = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) return -1;
  bool written = true;
  for (std::size_t i = 0; i < kMost && written; ++i) {
    fill(block, i + 1);
    written = ::write(file, block.data(), block.size()) == static_cast<ssize_t>(block.size());
  }
  if (written && ::fsync(file) == 0) return file;
  ::close(file);
  return -1;
}

}  // namespace

double disk_rate(const fs::path& file_or_folder) {
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(kPage, kBlock), std::free);
  if (!memory) return 0;
  const std::span<std::byte> block(static_cast<std::byte*>(memory.get()), kBlock);
  std::error_code ignored;
  const bool folder = fs::is_directory(file_or_folder, ignored);
  const File cached(folder ? scratch_file(file_or_folder, block)
                           : ::open(file_or_folder.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (cached.descriptor() < 0) return 0;
  ::posix_fadvise(cached.descriptor(), 0, 0, POSIX_FADV_DONTNEED);
  // Past the page cache where the file system can.
  const File direct(
      ::open(fmt::format("/proc/self/fd/{}", cached.descriptor()).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  const int from = direct.descriptor() >= 0 ? direct.descriptor() : cached.descriptor();
  std::size_t read = 0;
  const double begun_s = now_s();
  for (std::size_t i = 0; i < kMost; ++i) {
    const ssize_t got = ::pread(from, block.data(), block.size(), static_cast<off_t>(read));
    if (got <= 0) break;
    read += static_cast<std::size_t>(got);
  }
  return static_cast<double>(read) / std::max(now_s() - begun_s, 1e-9);
}

}  // namespace xdit::launch
