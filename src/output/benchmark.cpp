#include "output/benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "output/stretches.h"

namespace xdit::output {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<Cell>;

double rounded(double value) {
  return std::round(value * 1e6) / 1e6;
}

double at_quantile(const std::vector<double>& sorted, double quantile) {
  const double place = quantile * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const double above = sorted[std::min(below + 1, sorted.size() - 1)];
  return sorted[below] + (place - std::floor(place)) * (above - sorted[below]);
}

std::optional<Timed::Gpus> gpus_of(const Report& report) {
  const std::vector<Reading> readings = readings_in_steps(report);
  if (readings.empty()) return std::nullopt;
  Timed::Gpus sum;
  for (const Reading& reading : readings) {
    sum.clock_mhz += reading.clock_mhz;
    sum.power_w += reading.power_w;
    sum.slowed += reading.slowed.empty() ? 0 : 1;
  }
  const auto count = static_cast<double>(readings.size());
  return Timed::Gpus{sum.clock_mhz / count, sum.power_w / count, sum.slowed / count};
}

// Seconds of a run by the name of its row; nothing where a run has no such phase.
using Figures = std::map<std::string, std::vector<double>>;

std::string row_name(const std::string& phase) {
  return phase == "step" ? "denoise" : phase;
}

void add(const Timed& run, Figures& figures) {
  for (const auto& [phase, seconds] : run.seconds) figures[row_name(phase)].push_back(seconds);
  std::vector<double>& steps = figures["step"];
  steps.insert(steps.end(), run.steps_s.begin(), run.steps_s.end());
  figures["total"].push_back(run.total_s);
}

Cell median_cell(const Figures& figures, const std::string& name) {
  const auto found = figures.find(name);
  if (found == figures.end() || found->second.empty()) return {};
  return rounded(summarise(found->second).median);
}

std::vector<std::string> row_names(const Timed& cold) {
  std::vector<std::string> names;
  for (const auto& [phase, seconds] : cold.seconds) {
    names.push_back(row_name(phase));
    if (phase == "step") names.emplace_back("step");
  }
  names.emplace_back("total");
  return names;
}

// "2 x NVIDIA H100 80GB HBM3, cpu"
std::string devices_of(const Report& report) {
  std::map<std::string, std::set<std::string>> devices;  // by name
  for (const RankUse& use : report.ranks)
    devices[use.device].insert(use.device_id.empty() ? std::to_string(use.rank) : use.device_id);
  std::string text;
  for (const auto& [name, ids] : devices)
    text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", ids.size(), name);
  return text;
}

std::string gpus_line(const Benchmark& benchmark) {
  std::vector<double> clocks;
  std::vector<double> powers;
  std::vector<double> slowed;
  for (const Timed& run : benchmark.repeats)
    if (run.gpus) {
      clocks.push_back(run.gpus->clock_mhz);
      powers.push_back(run.gpus->power_w);
      slowed.push_back(run.gpus->slowed);
    }
  if (clocks.empty()) return {};
  std::string text = fmt::format("In the steps {:.0f} MHz, {:.0f} W a GPU", summarise(clocks).median,
                                 summarise(powers).median);
  if (benchmark.rest.gpus)
    text += fmt::format(" (from rest {:.0f} MHz, {:.0f} W)", benchmark.rest.gpus->clock_mhz,
                        benchmark.rest.gpus->power_w);
  return text + fmt::format("; held down in {:.0f} % of readings.\n", 100 * summarise(slowed).median);
}

Json json_of(const Timed& run) {
  Json json{{"total_s", rounded(run.total_s)}, {"phases", Json::object()}, {"steps_s", Json::array()}};
  for (const auto& [phase, seconds] : run.seconds) json["phases"][phase] = rounded(seconds);
  for (const double step : run.steps_s) json["steps_s"].push_back(rounded(step));
  if (run.gpus)
    json.update({{"clock_mhz", std::round(run.gpus->clock_mhz)},
                 {"power_w", std::round(run.gpus->power_w)},
                 {"slowed", rounded(run.gpus->slowed)}});
  return json;
}

}  // namespace

Samples summarise(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  return {.median = at_quantile(samples, 0.5),
          .least = samples.front(),
          .most = samples.back(),
          .spread = at_quantile(samples, 0.75) - at_quantile(samples, 0.25)};
}

Timed timed_of(const Report& report) {
  Timed timed{
      .total_s = report.wall_s, .seconds = seconds_in_order(report), .steps_s = {}, .gpus = gpus_of(report)};
  std::map<std::pair<std::int64_t, std::int64_t>, double> steps;  // by picture and step
  for (const Phase& phase : report.phases)
    if (phase.name == "step") {
      double& longest = steps[{phase.picture, phase.step}];
      longest = std::max(longest, phase.end_s - phase.start_s);
    }
  timed.steps_s.reserve(steps.size());
  for (const auto& [step, seconds] : steps) timed.steps_s.push_back(seconds);
  return timed;
}

Table table_of(const Benchmark& benchmark) {
  const Timed first = timed_of(benchmark.about);
  Figures cold;
  Figures rest;
  Figures repeats;
  add(first, cold);
  add(benchmark.rest, rest);
  for (const Timed& run : benchmark.repeats) add(run, repeats);
  Table table{.columns = {{"phase", "seconds"},
                          {"cold_s", "cold"},
                          {"rest_s", "from rest"},
                          {"median_s", benchmark.sustained() ? "sustained" : "median"},
                          {"least_s", "least"},
                          {"most_s", "most"},
                          {"spread_s", "spread"},
                          {"samples", "samples"}},
              .rows = {}};
  for (const std::string& name : row_names(first)) {
    Row row{name, median_cell(cold, name), median_cell(rest, name)};
    if (const std::vector<double>& samples = repeats[name]; !samples.empty()) {
      const Samples of = summarise(samples);
      for (const double value : {of.median, of.least, of.most, of.spread}) row.emplace_back(rounded(value));
      row.emplace_back(static_cast<std::int64_t>(samples.size()));
    }
    row.resize(table.columns.size());
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string to_markdown(const Benchmark& benchmark) {
  const Report& about = benchmark.about;
  std::string text = fmt::format("    {}\n\nxdit-gen {}, {}, {}", benchmark.command, about.version,
                                 about.model, devices_of(about));
  if (!benchmark.driver.empty()) text += ", driver " + benchmark.driver;
  text += "\n\n" + to_markdown(table_of(benchmark)) + "\n";
  const std::size_t count = benchmark.repeats.size();
  text += fmt::format("{} run{} in {:.2f} s", count, count == 1 ? "" : "s", benchmark.repeated_s);
  text += benchmark.sustained() ? ": sustained.\n"
                                : fmt::format(": not sustained (--sustained {}).\n", kSustainedS);
  return text + gpus_line(benchmark);
}

std::string to_json(const Benchmark& benchmark) {
  const Report& about = benchmark.about;
  Json json{{"version", about.version},
            {"command", benchmark.command},
            {"model", about.model},
            {"model_hash", about.model_hash},
            {"devices", Json::array()},
            {"driver", benchmark.driver},
            {"grid", about.grid},
            {"settings", about.settings},
            {"elapsed_s", rounded(benchmark.elapsed_s)},
            {"repeated_s", rounded(benchmark.repeated_s)},
            {"sustained", benchmark.sustained()},
            {"figures", Json::parse(to_json(table_of(benchmark)))},
            {"cold", json_of(timed_of(about))},
            {"rest", json_of(benchmark.rest)},
            {"repeats", Json::array()}};
  for (const RankUse& use : about.ranks) json["devices"].push_back(use.device);
  for (const Timed& run : benchmark.repeats) json["repeats"].push_back(json_of(run));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace xdit::output
