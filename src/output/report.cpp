#include "output/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "core/file.h"
#include "core/json.h"
#include "output/held_back.h"
#include "output/stretches.h"

namespace xdit::output {
namespace {

using Ordered = nlohmann::ordered_json;

double to_microsecond(double seconds) {
  return std::round(seconds * 1e6) / 1e6;
}

Ordered phase_json(const Phase& phase) {
  Ordered json{{"name", phase.name}, {"rank", phase.rank}};
  if (phase.picture >= 0) json["picture"] = phase.picture;
  if (phase.step >= 0) json["step"] = phase.step;
  json["start_s"] = to_microsecond(phase.start_s);
  json["end_s"] = to_microsecond(phase.end_s);
  return json;
}

Ordered rank_json(const RankUse& use) {
  Ordered json{{"rank", use.rank},
               {"device", use.device},
               {"device_id", use.device_id},
               {"held_s", to_microsecond(use.held_s)},
               {"peak_device_bytes", use.peak_device_bytes},
               {"peak_host_bytes", use.peak_host_bytes},
               {"bytes_read", use.bytes_read},
               {"bytes_sent", use.bytes_sent}};
  if (use.waited_s >= 0) json["waited_s"] = to_microsecond(use.waited_s);
  if (use.host_bound_s >= 0) json["host_bound_s"] = to_microsecond(use.host_bound_s);
  return json;
}

Ordered finding_json(const Finding& finding) {
  return {{"what", finding.what},
          {"seconds", to_microsecond(finding.seconds)},
          {"of", to_microsecond(finding.of)},
          {"mend", finding.mend}};
}

Ordered reading_json(const Reading& reading) {
  return {{"at_s", to_microsecond(reading.at_s)},
          {"device_id", reading.device_id},
          {"clock_mhz", reading.clock_mhz},
          {"power_w", reading.power_w},
          {"slowed", reading.slowed}};
}

// Stretches of the phases of these names, by rank.
std::map<std::int64_t, std::vector<Stretch>> stretches_of(const Json& phases,
                                                          const std::vector<std::string>& names) {
  std::map<std::int64_t, std::vector<Stretch>> by_rank;
  for (const Json& phase : phases)
    if (std::find(names.begin(), names.end(), phase.at("name").get<std::string>()) != names.end())
      by_rank[integer_of(phase.at("rank"))].emplace_back(phase.at("start_s").get<double>(),
                                                         phase.at("end_s").get<double>());
  return by_rank;
}

double slowest(const Json& phases, const std::vector<std::string>& names) {
  double longest = 0;
  for (const auto& [rank, stretches] : stretches_of(phases, names))
    longest = std::max(longest, covered(stretches));
  return to_microsecond(longest);
}

double slowest_step(const Json& phases) {
  double longest = 0;
  for (const auto& [rank, steps] : stretches_of(phases, {"step"}))
    longest = std::max(longest, covered(steps) / static_cast<double>(steps.size()));
  return to_microsecond(longest);
}

std::uint64_t most(const Json& ranks, const char* name) {
  std::int64_t bytes = 0;
  for (const Json& rank : ranks) bytes = std::max(bytes, integer_of(rank.at(name)));
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace

double gpu_seconds(const Report& report) {
  std::map<std::string, double> held;  // by GPU
  for (const RankUse& use : report.ranks)
    if (!use.device_id.empty()) held[use.device_id] = std::max(held[use.device_id], use.held_s);
  return std::accumulate(held.begin(), held.end(), 0.0,
                         [](double sum, const auto& gpu) { return sum + gpu.second; });
}

std::map<std::string, double> seconds_by_phase(const Report& report) {
  const std::int64_t last = last_at_work(report);               // the others' finish is a wait for it
  std::map<std::pair<std::string, std::int64_t>, double> sums;  // by name and rank
  for (const Phase& phase : report.phases)
    if (!is_part(phase) && (phase.name != "finish" || phase.rank == last))
      sums[{phase.name, phase.rank}] += phase.end_s - phase.start_s;
  std::map<std::string, double> seconds;
  for (const auto& [key, sum] : sums) seconds[key.first] = std::max(seconds[key.first], sum);
  return seconds;
}

std::vector<std::pair<std::string, double>> seconds_in_order(const Report& report) {
  std::map<std::string, double> seconds = seconds_by_phase(report);
  std::vector<std::pair<std::string, double>> ordered;
  for (const Phase& phase : report.phases)
    if (const auto found = seconds.extract(phase.name)) ordered.emplace_back(found.key(), found.mapped());
  return ordered;
}

std::vector<std::pair<std::string, double>> seconds_by_part(const Report& report) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> parts{
      {"start", {"start", "connect"}},
      {"load", {"load", "load_encoders"}},
      {"encode", {"tokenise", "text_encode", "share_prompts"}},
      {"warm_up", {"warm_up"}},
      {"denoise", {"prepare", "step", "hand_over"}},
      {"decode", {"decode"}},
      {"write", {"write", "write_trace"}},
      {"finish", {"finish"}}};
  const std::int64_t last = last_at_work(report);
  std::vector<std::pair<std::string, double>> seconds;
  std::vector<Stretch> so_far;
  double before = 0;
  for (const auto& [part, names] : parts) {
    for (const Phase& phase : report.phases)
      if (phase.rank == last && std::find(names.begin(), names.end(), phase.name) != names.end())
        so_far.emplace_back(phase.start_s, phase.end_s);
    const double now = covered(so_far);
    seconds.emplace_back(part, now - before);
    before = now;
  }
  seconds.emplace_back("rest", report.wall_s - before);
  seconds.emplace_back("total", report.wall_s);
  double steps_s = 0, steps = 0;
  for (const Phase& phase : report.phases)
    if (phase.name == "step" && phase.rank == last) steps_s += phase.end_s - phase.start_s, ++steps;
  if (steps > 0) seconds.emplace_back("step", steps_s / steps);
  return seconds;
}

std::string to_json(const Report& report) {
  Ordered json{{"version", report.version},
               {"model", report.model},
               {"model_hash", report.model_hash},
               {"wall_s", to_microsecond(report.wall_s)},
               {"gpu_seconds", to_microsecond(gpu_seconds(report))}};
  json["seconds"] = Ordered::object();
  for (const auto& [name, seconds] : seconds_by_phase(report))
    json["seconds"][name] = to_microsecond(seconds);
  json["parts"] = Ordered::object();
  for (const auto& [name, seconds] : seconds_by_part(report)) json["parts"][name] = to_microsecond(seconds);
  json["held_back"] = Ordered::array();
  for (const Finding& finding : held_back(report)) json["held_back"].push_back(finding_json(finding));
  json["grid"] = report.grid;
  json["settings"] = report.settings;
  json["pictures"] = Ordered::array();
  for (const std::filesystem::path& picture : report.pictures) json["pictures"].push_back(picture.string());
  json["ranks"] = Ordered::array();
  for (const RankUse& use : report.ranks) json["ranks"].push_back(rank_json(use));
  json["phases"] = Ordered::array();
  for (const Phase& phase : report.phases) json["phases"].push_back(phase_json(phase));
  json["readings"] = Ordered::array();
  for (const Reading& reading : report.readings) json["readings"].push_back(reading_json(reading));
  return json.dump(2, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

Measured read_measured(const std::filesystem::path& path, ExitCode code) {
  const Json report = read_json(path, code, std::size_t{1} << 30U);
  try {
    const Json& phases = report.at("phases");
    const Json& ranks = report.at("ranks");
    const std::uint64_t on_device = most(ranks, "peak_device_bytes");
    return {.load_s = slowest(phases, {"load", "load_encoders"}),
            .encode_s = slowest(phases, {"text_encode"}),
            .denoise_s = slowest(phases, {"step"}),
            .decode_s = slowest(phases, {"decode"}),
            .total_s = report.at("wall_s").get<double>(),
            .step_s = slowest_step(phases),
            .peak_bytes = on_device > 0 ? on_device : most(ranks, "peak_host_bytes"),
            .version = report.at("version").get<std::string>(),
            .model_hash = report.at("model_hash").get<std::string>()};
  } catch (const Json::exception&) {
    throw Error(code, "not a report of xdit-gen", path.string());
  }
}

void write_report(const Report& report, const std::filesystem::path& path, bool overwrite) {
  write_file_atomically(path, to_json(report), overwrite);
}

}  // namespace xdit::output
