#include "cli/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "cli/commands.h"
#include "cli/console.h"
#include "config/values.h"
#include "launch/launch.h"
#include "launch/stages.h"
#include "output/table.h"
#include "parallel/plan_predict.h"

namespace xdit::cli {
namespace {

using parallel::Grid;
using parallel::Prediction;
using Json = nlohmann::ordered_json;

constexpr std::size_t kShownGrids = 12;  // grids

const char* grade_name(config::Allow grade) {
  if (grade == config::Allow::kExact) return "exact";
  return grade == config::Allow::kRounding ? "rounding" : "approximate";
}

Json seconds_json(const Prediction& prediction) {
  return {{"start", prediction.start_s},     {"load", prediction.load_s},
          {"encode", prediction.encode_s},   {"warm_up", prediction.warm_up_s},
          {"denoise", prediction.denoise_s}, {"step", prediction.step_s},
          {"decode", prediction.decode_s},   {"write", prediction.write_s},
          {"finish", prediction.finish_s},   {"total", prediction.total_s()}};
}

Json grid_json(const Grid& grid) {
  Json degrees;
  for (const auto& [name, degree] : grid.mesh.degrees()) degrees[name] = degree;
  Json json{{"grid", degrees}, {"sharded_over", grid.shard}, {"picture", grade_name(grid.grade)}};
  json["peak_bytes"] = grid.peak_memory > 0 ? Json(grid.peak_memory) : Json();
  json["seconds"] = grid.prediction ? seconds_json(*grid.prediction) : Json();
  json["bytes_a_step"] = grid.prediction ? Json(grid.prediction->exchanged) : Json();
  if (!grid.why_not.empty()) json["why_not"] = grid.why_not;
  return json;
}

Json rank_json(const parallel::RankPlan& rank) {
  Json networks;
  for (const auto& [name, bytes] : rank.networks)
    networks[name] = {{"read_bytes", bytes.file}, {"held_bytes", bytes.memory}};
  return {
      {"rank", rank.rank}, {"device", rank.device}, {"peak_bytes", rank.peak_memory}, {"networks", networks}};
}

Json plan_json(const Prepared& run, const parallel::Machine& machine, const parallel::Plan& plan,
               const std::optional<parallel::Plan>& refiner, const std::vector<Grid>& grids) {
  const config::RunSpec& spec = run.resolved.spec;
  Json json{{"model", run.model.files.name},
            {"width", spec.image.width},
            {"height", spec.image.height},
            {"steps", spec.sampling.steps},
            {"pictures", config::pictures(spec).size()},
            {"dtype", flag_name(spec.model.dtype)},
            {"machine", nlohmann::json(machine)},
            {"chosen", grid_json(grids.front())},
            {"ranks", Json::array()},
            {"rejected", Json::array()}};
  for (const parallel::RankPlan& rank : plan.ranks) json["ranks"].push_back(rank_json(rank));
  if (refiner) {
    json["refiner"] = {{"model", run.refiner->files.name}, {"ranks", Json::array()}};
    for (const parallel::RankPlan& rank : refiner->ranks) json["refiner"]["ranks"].push_back(rank_json(rank));
  }
  for (std::size_t i = 1; i < grids.size(); ++i) json["rejected"].push_back(grid_json(grids[i]));
  return json;
}

double gigabytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / 1e9;
}

std::string prediction_text(const Prediction& prediction, const parallel::Machine& machine) {
  using output::three_digits;
  const auto [least, most] = std::minmax_element(prediction.exchanged.begin(), prediction.exchanged.end());
  return fmt::format(
      "predicted seconds on {} x {}: start {}, load {}, encode {}, warm-up {}, denoise {} ({} a step), "
      "decode {}, write {}, finish {}: {} in all\n{}",
      prediction.exchanged.size(), machine.gpus.front().name, three_digits(prediction.start_s),
      three_digits(prediction.load_s), three_digits(prediction.encode_s), three_digits(prediction.warm_up_s),
      three_digits(prediction.denoise_s), three_digits(prediction.step_s), three_digits(prediction.decode_s),
      three_digits(prediction.write_s), three_digits(prediction.finish_s), three_digits(prediction.total_s()),
      *most == 0 ? ""
                 : fmt::format("a rank gets {}{} GB from others in a step\n",
                               *least == *most ? "" : three_digits(gigabytes(*least)) + " to ",
                               three_digits(gigabytes(*most))));
}

std::string grids_text(const std::vector<Grid>& grids) {
  output::Table table{.columns = {{"grid", "grid"},
                                  {"total_s", "total s"},
                                  {"denoise_s", "denoise s"},
                                  {"peak_gb", "GB a GPU"},
                                  {"step_gb", "GB a step"},
                                  {"why_not", "why not"}},
                      .rows = {}};
  for (std::size_t i = 0; i < std::min(grids.size(), kShownGrids); ++i) {
    const Grid& grid = grids[i];
    std::vector<output::Cell> row(table.columns.size());
    row[0] = parallel::name_of(grid);
    if (grid.prediction) {
      row[1] = grid.prediction->total_s();
      row[2] = grid.prediction->denoise_s;
      row[4] =
          gigabytes(*std::max_element(grid.prediction->exchanged.begin(), grid.prediction->exchanged.end()));
    }
    if (grid.peak_memory > 0) row[3] = gigabytes(grid.peak_memory);
    row[5] = i == 0 ? "chosen" : grid.why_not;
    table.rows.push_back(std::move(row));
  }
  std::string text = output::to_markdown(table);
  if (grids.size() > kShownGrids) text += fmt::format("{} more: --json\n", grids.size() - kShownGrids);
  return text;
}

ExitCode plan(const Call& call) {
  GenerateOptions options = read_generate_options(call.flags, std::cin);
  const auto fall_back = [&](const char* key, const char* value) {
    options.fallback.push_back({.key = key, .values = {value}, .where = "plan", .code = ExitCode::kUsage});
  };
  fall_back("prompt", "a prompt");
  const std::string named = call.flags.last("--machine");
  if (!named.empty()) fall_back("parallel.gpus", "all");
  const parallel::Machine machine = named.empty() ? launch::this_machine() : parallel::read_machine(named);
  const Prepared run = prepare(options, call.environment, [] { return std::uint64_t{0}; });
  const config::RunSpec& spec = run.resolved.spec;
  if (machine.gpus.empty() && spec.runtime.device == config::Device::kCuda)
    throw Error(ExitCode::kDevice, "no GPU to plan for", {}, "--machine h100x8, or --device cpu");
  const launch::Models models = run.models();
  parallel::Plan plan = parallel::make_plan(spec, run.model, machine);
  const std::optional<parallel::Plan> refiner = launch::plan_refiner(spec, models, plan, machine);
  const std::vector<Grid> grids = parallel::grids(plan, run.model, machine, spec, models.refiner);
  if (options.json) {
    if (refiner) plan = parallel::without_decoding(std::move(plan), run.model);
    print(plan_json(run, machine, plan, refiner, grids).dump() + "\n");
    return ExitCode::kOk;
  }
  std::string text = plan_text(run, machine);
  if (const auto& prediction = grids.front().prediction)
    text += "\n" + prediction_text(*prediction, machine);
  else if (spec.runtime.device == config::Device::kCuda)
    text += fmt::format(
        "\nno rates of {} are known: xdit-gen doctor --json > machine.json measures them, "
        "plan --machine machine.json\n",
        machine.gpus.front().name);
  if (grids.size() > 1) text += "\n" + grids_text(grids);
  print(printable(text));
  return ExitCode::kOk;
}

}  // namespace

std::string plan_text(const Prepared& run, const parallel::Machine& machine) {
  const config::RunSpec& spec = run.resolved.spec;
  const parallel::Plan plan = parallel::make_plan(spec, run.model, machine);
  const auto refiner = launch::plan_refiner(spec, run.models(), plan, machine);
  if (!refiner) return parallel::to_text(plan, run.model, machine, spec);
  return parallel::to_text(parallel::without_decoding(plan, run.model), run.model, machine, spec) +
         "refiner, once the model has gone:\n" + parallel::to_text(*refiner, *run.refiner, machine, spec);
}

Command plan_command() {
  return {
      .name = "plan",
      .arguments = "",
      .positionals = 0,
      .meaning = "what generate would do, how long it takes, and what other grids would: no GPU is needed",
      .examples = R"(xdit-gen plan -m models/FLUX.1-dev --machine h100x8
xdit-gen plan --profile run.yaml --machine machine.json
)",
      .add_flags =
          [](Parser& parser) {
            add_generate_flags(parser);
            parser.value("--machine", "NAME", "h100x8, h200, a100x4, or a file of doctor --json");
          },
      .run = plan};
}

}  // namespace xdit::cli
