#pragma once
#include <filesystem>
#include <string>

namespace xdit {

/// A new folder of this user alone, below TMPDIR, that goes with what was written there.
class TemporaryFolder {
 public:
  TemporaryFolder();  ///< Error(kOutput)
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  [[nodiscard]] std::filesystem::path path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace xdit
