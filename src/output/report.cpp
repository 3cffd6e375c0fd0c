#include "output/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "core/file.h"

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
  return {{"rank", use.rank},
          {"device", use.device},
          {"device_id", use.device_id},
          {"held_s", to_microsecond(use.held_s)},
          {"peak_device_bytes", use.peak_device_bytes},
          {"peak_host_bytes", use.peak_host_bytes},
          {"bytes_read", use.bytes_read},
          {"bytes_sent", use.bytes_sent}};
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
  std::map<std::pair<std::string, std::int64_t>, double> sums;  // by name and rank
  for (const Phase& phase : report.phases) sums[{phase.name, phase.rank}] += phase.end_s - phase.start_s;
  std::map<std::string, double> seconds;
  for (const auto& [key, sum] : sums) seconds[key.first] = std::max(seconds[key.first], sum);
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
  json["grid"] = report.grid;
  json["settings"] = report.settings;
  json["pictures"] = Ordered::array();
  for (const std::filesystem::path& picture : report.pictures) json["pictures"].push_back(picture.string());
  json["ranks"] = Ordered::array();
  for (const RankUse& use : report.ranks) json["ranks"].push_back(rank_json(use));
  json["phases"] = Ordered::array();
  for (const Phase& phase : report.phases) json["phases"].push_back(phase_json(phase));
  return json.dump(2, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

void write_report(const Report& report, const std::filesystem::path& path, bool overwrite) {
  write_file_atomically(path, to_json(report), overwrite);
}

}  // namespace xdit::output
