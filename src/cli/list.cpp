#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/console.h"
#include "config/samplers.h"
#include "config/values.h"
#include "launch/launch.h"
#include "models/registry.h"

namespace xdit::cli {
namespace {

using Json = nlohmann::ordered_json;

Json list_models() {
  Json rows = Json::array();
  for (const models::FamilyInfo& family : models::families())
    rows.push_back({{"family", family.name}, {"pipeline", family.pipeline}, {"builtin", family.builtin}});
  return rows;
}

Json list_schedulers() {
  Json rows = Json::array();
  for (const config::Sampler& sampler : config::samplers())
    rows.push_back({{"scheduler", sampler.name},
                    {"diffusers", sampler.diffusers},
                    {"a1111", sampler.a1111},
                    {"comfyui", sampler.comfyui},
                    {"models", sampler.can.flow_matching ? "flow matching" : "noise"},
                    {"sigmas", config::split(sampler.can.sigmas, '|')}});
  return rows;
}

Json list_devices() {
  const parallel::Machine machine = launch::this_machine();
  Json rows = Json::array();
  for (std::size_t i = 0; i < machine.gpus.size(); ++i)
    rows.push_back({{"device", fmt::format("cuda:{}", i)},
                    {"name", machine.gpus[i].name},
                    {"memory", machine.gpus[i].memory},
                    {"uuid", machine.gpus[i].uuid}});
  rows.push_back({{"device", "cpu"},
                  {"name", fmt::format("{} cores", machine.cores)},
                  {"memory", machine.host_memory},
                  {"uuid", ""}});
  return rows;
}

std::string cell(const std::string& column, const Json& value) {
  if (column == "memory") return fmt::format("{:.1f} GB", value.get<double>() / 1e9);
  if (value.is_array()) return fmt::format("{}", fmt::join(value.get<std::vector<std::string>>(), ", "));
  return value.get<std::string>();
}

// Columns as wide as they must be; the names of columns first.
std::string table(const Json& rows) {
  std::vector<std::vector<std::string>> columns;
  for (const auto& [name, value] : rows.front().items()) columns.push_back({name});
  for (const Json& row : rows) {
    std::size_t i = 0;
    for (const auto& [name, value] : row.items()) columns[i++].push_back(cell(name, value));
  }
  std::string text;
  for (std::size_t line = 0; line <= rows.size(); ++line) {
    std::string cells;
    for (const std::vector<std::string>& column : columns) {
      const auto widest = std::max_element(column.begin(), column.end(),
                                           [](const auto& x, const auto& y) { return x.size() < y.size(); });
      cells += fmt::format("{:<{}}  ", column[line], widest->size());
    }
    text += cells.substr(0, cells.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

constexpr std::string_view kNames = "models|schedulers|devices";
constexpr std::array kLists{list_models, list_schedulers, list_devices};  // in the order of kNames

ExitCode list(const Call& call) {
  const std::string name = call.rest.empty() ? "" : call.rest.front();
  const Json rows = kLists.at(choice(name, kNames, "xdit-gen list"))();
  print(call.flags.on("--json") ? rows.dump() + "\n" : table(rows));
  return ExitCode::kOk;
}

}  // namespace

Command list_command() {
  return {.name = "list",
          .arguments = kNames,
          .positionals = 1,
          .meaning = "what is known, or what is there",
          .examples = R"(xdit-gen list schedulers
xdit-gen list devices --json
)",
          .add_flags = [](Parser& parser) { parser.toggle("--json", "one JSON array"); },
          .run = list};
}

}  // namespace xdit::cli
