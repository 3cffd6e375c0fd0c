#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "core/file.h"
#include "tests/cli/process.h"

namespace xdit::test {

/// xdit-gen's arguments for small pictures of a fox on the CPU: output/0.png and so on.
inline std::vector<std::string> arguments(const std::filesystem::path& output,
                                          const std::vector<std::string>& more) {
  std::vector<std::string> all{"-m",       cli::data("flux/tiny-dev"),
                               "--device", "cpu",
                               "--dtype",  "fp32",
                               "--size",   "32x48",
                               "-p",       "a fox",
                               "-s",       "1",
                               "-o",       output / "{index}.png"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

inline std::string contents(const std::filesystem::path& file) {
  return read_file(file, ExitCode::kOutput);
}

}  // namespace xdit::test
