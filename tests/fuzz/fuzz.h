#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

/// What the targets share. A target throws nothing but xdit::Error inside `attempt`.
namespace xdit::fuzz {

/// A file without a folder, whose bytes change.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (descriptor_ < 0) throw std::runtime_error("memfd_create");
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(descriptor_); }

  [[nodiscard]] std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  void set(std::string_view bytes, std::size_t zeros_after = 0) const {
    if (::ftruncate(descriptor_, 0) != 0 ||
        ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()) ||
        ::ftruncate(descriptor_, static_cast<off_t>(bytes.size() + zeros_after)) != 0)
      throw std::runtime_error("memory file");
  }

 private:
  int descriptor_;
};

/// A folder with files of these names; gone at the end.
class MemoryFolder {
 public:
  explicit MemoryFolder(const std::vector<std::string>& names) : files_(names.size()) {
    std::string pattern = std::filesystem::temp_directory_path() / "fuzz-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = pattern;
    for (std::size_t i = 0; i < names.size(); ++i) {
      std::filesystem::create_directories((path_ / names[i]).parent_path());
      std::filesystem::create_symlink(files_[i].path(), path_ / names[i]);
    }
  }
  MemoryFolder(const MemoryFolder&) = delete;
  MemoryFolder& operator=(const MemoryFolder&) = delete;
  ~MemoryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const MemoryFile& file(std::size_t index) const { return files_[index]; }

 private:
  std::filesystem::path path_;
  std::vector<MemoryFile> files_;
};

inline std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};  // NOLINT: libFuzzer's interface
}

/// The input cut at bytes 0xFF, which no UTF-8 holds; `count` parts, the last ones empty if there are fewer.
inline std::vector<std::string_view> parts(std::string_view input, std::size_t count) {
  std::vector<std::string_view> all;
  while (all.size() < count) {
    const std::size_t end = std::min(input.find('\xFF'), input.size());
    all.push_back(input.substr(0, end));
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  return all;
}

template <typename Act>
void attempt(const Act& act) {
  try {
    act();
  } catch (const Error& error) {
    // A message for people, whatever the file holds.
    if (std::string_view(error.what()).size() > 8192) throw std::runtime_error("a long message");
  }
}

}  // namespace xdit::fuzz
