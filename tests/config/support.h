#pragma once
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "config/settings.h"

namespace xdit::config {

/// A folder of its own, removed at the end of the test.
struct TemporaryFolder {
  std::filesystem::path path = make();

  TemporaryFolder() = default;
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }

  [[nodiscard]] std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name, std::ios::binary) << text;
    return path / name;
  }

 private:
  static std::filesystem::path make() {
    std::string name = (std::filesystem::temp_directory_path() / "xdit-config-XXXXXX").string();
    return ::mkdtemp(name.data());
  }
};

inline Layer read_text(const TemporaryFolder& folder, const std::string& yaml) {
  return read_profile(folder.write("run.yaml", yaml));
}

/// What must be set for a RunSpec to resolve.
inline Layer minimum() {
  const auto setting = [](const char* key, const char* value) {
    return Setting{.key = key, .values = {value}, .where = "test", .code = ExitCode::kUsage};
  };
  return {setting("model.path", "some-model"), setting("prompt", "a fox"), setting("sampling.seed", "0")};
}

inline std::uint64_t no_draw() {
  throw Error(ExitCode::kInternal, "a seed was drawn");
}

/// The minimum with `assignments` over it, "sampling.steps=4".
inline Resolved with(const std::vector<std::string>& assignments) {
  Layer layer;
  for (const std::string& assignment : assignments) layer.push_back(parse_assignment(assignment));
  return resolve(std::vector<Layer>{minimum(), layer}, no_draw);
}

/// What is wrong with them.
inline Error fault(const std::vector<std::string>& assignments) {
  try {
    static_cast<void>(with(assignments));
  } catch (const Error& error) {
    return error;
  }
  return {ExitCode::kOk, "accepted"};
}

}  // namespace xdit::config
