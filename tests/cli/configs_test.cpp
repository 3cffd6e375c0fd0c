// The profiles of configs/ as users give them, with small models in the place of theirs.
#include <filesystem>

#include "tests/catch.h"
#include "tests/cli/process.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;

std::string small_model(const std::string& profile) {
  if (profile.starts_with("flux-schnell") || profile == "batch") return data("flux/tiny-schnell");
  if (profile == "sdxl-single-file") return XDIT_SINGLE_FILES "/tiny-sdxl.safetensors";
  if (profile.starts_with("sdxl")) return data("sd/tiny-sdxl");
  if (profile.starts_with("sd15")) return data("sd/tiny-sd15");
  return data(profile.starts_with("sd21") ? "sd/tiny-sd21" : "flux/tiny-dev");
}

}  // namespace

TEST_CASE("every profile in configs/ works from the command line") {
  const Folder folder;
  std::size_t profiles = 0;
  for (const fs::directory_entry& file : fs::directory_iterator(XDIT_SOURCE "/configs")) {
    if (file.path().extension() != ".yaml") continue;
    const std::string name = file.path().stem().string();
    CAPTURE(name);
    std::vector<std::string> arguments{"--profile", file.path().string()};
    if (name == "sweep") arguments = {"sweep", file.path().string(), "--set", "parallel.gather=auto"};
    const std::string output = (folder.path / (name == "sweep" ? "sweep" : "{index}.png")).string();
    for (const std::string& more :
         std::vector<std::string>{"-m", small_model(name), "--device", "cpu", "--dry-run", "-o", output})
      arguments.push_back(more);
    if (name == "sdxl-refiner") arguments.insert(arguments.end(), {"--refiner", data("sd/tiny-refiner")});
    if (name == "sdxl-single-file")
      arguments.insert(arguments.end(),
                       {"--tokenizers", data("sd/tiny-sdxl"), "--base", data("sd/tiny-sdxl")});
    if (name == "batch") arguments.insert(arguments.end(), {"-p", "a fox", "--seed", "1"});
    const Result result = xdit_gen(arguments);
    INFO(result.err);
    CHECK(result.code == 0);
    CHECK(result.err.empty());
    CHECK_THAT(result.out, ContainsSubstring(name == "sweep" ? "point 8 of 8" : "# mesh: "));
    ++profiles;
  }
  CHECK(profiles == 17);
}

}  // namespace xdit::cli
