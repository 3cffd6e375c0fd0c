#include <nlohmann/json.hpp>

#include <algorithm>

#include "cli/commands.h"
#include "cli/console.h"
#include "launch/health.h"

namespace xdit::cli {
namespace {

constexpr const char* kDevices = "cuda|cpu";

ExitCode doctor(const Call& call) {
  const std::string device = call.flags.values("--device").empty() ? "cuda" : call.flags.last("--device");
  const bool on_gpus = choice(device, kDevices, "--device") == 0;
  const std::filesystem::path disk = call.rest.empty() ? "." : call.rest.front();
  if (!std::filesystem::exists(disk))
    throw Error(ExitCode::kUsage, "no such file or folder", disk.string(), "the folder with the models");
  const launch::Health health = launch::examine(disk, on_gpus, call.stop);
  const std::vector<launch::Problem> problems = launch::problems_of(health, on_gpus);
  print(call.flags.on("--json") ? launch::to_json(health, problems).dump(2) + "\n"
                                : printable(launch::to_text(health, problems)));
  const bool usable =
      std::none_of(problems.begin(), problems.end(), [](const auto& one) { return one.fatal; });
  return usable ? ExitCode::kOk : ExitCode::kDevice;
}

}  // namespace

Command doctor_command() {
  return {
      .name = "doctor",
      .arguments = "PATH",
      .positionals = 1,
      .meaning =
          "what is wrong with GPUs, driver and the disk of PATH, and its mend; exit 5: no GPU can be used",
      .examples = R"(xdit-gen doctor models
xdit-gen doctor --json > machine.json
)",
      .add_flags =
          [](Parser& parser) {
            parser.value("--device", kDevices, "what pictures are to be made on");
            parser.toggle("--json", "one object, which plan --machine reads");
          },
      .run = doctor};
}

}  // namespace xdit::cli
