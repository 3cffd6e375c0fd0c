#include "cli/sweep_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "cli/number.h"
#include "config/values.h"

namespace xdit::cli {
namespace {

using output::Cell;
using Row = std::vector<Cell>;

// A swept value: a number where it reads as one.
Cell value_cell(const config::Setting& setting) {
  const std::string text = config::valid_utf8(fmt::format("{}", fmt::join(setting.values, ", ")));
  if (const auto whole = number<std::int64_t>(text)) return *whole;
  if (const auto real = number<double>(text)) return *real;
  return text;
}

double gpus_of(const SweepPoint& point) {
  return static_cast<double>(point.plan.ranks.size());
}

// The first complete point of the same group.
const SweepPoint& baseline(const SweepPoint& point, const std::vector<SweepPoint>& points) {
  return *std::find_if(points.begin(), points.end(),
                       [&](const SweepPoint& other) { return other.measured && other.group == point.group; });
}

double ratio(double of, double to) {
  return to > 0 ? std::round(of / to * 1e4) / 1e4 : 0;
}

double speed_up(const SweepPoint& point, const SweepPoint& first) {
  return ratio(first.measured->total_s, point.measured->total_s);
}

void add_measured(const SweepPoint& point, const std::vector<SweepPoint>& points, Row& row) {
  const output::Measured& measured = *point.measured;
  const SweepPoint& first = baseline(point, points);
  row.emplace_back(static_cast<std::int64_t>(point.plan.ranks.size()));
  for (const double seconds : {measured.load_s, measured.encode_s, measured.denoise_s, measured.decode_s,
                               measured.total_s, measured.step_s})
    row.emplace_back(seconds);
  row.emplace_back(static_cast<double>(measured.peak_bytes) / 1e9);
  row.emplace_back(speed_up(point, first));
  row.emplace_back(ratio(speed_up(point, first) * gpus_of(first), gpus_of(point)));
  row.emplace_back(ratio(first.measured->denoise_s, measured.denoise_s));
  if (!point.equality.empty()) row.emplace_back(point.equality);
}

Cell& cell(const output::Table& table, Row& row, std::string_view column) {
  const auto found =
      std::ranges::find_if(table.columns, [&](const auto& other) { return other.name == column; });
  return row.at(static_cast<std::size_t>(found - table.columns.begin()));
}

// "steps 20, ulysses auto": the point's values but that of `x_key`.
std::string label_without(const SweepPoint& point, const std::string& x_key) {
  std::string label;
  for (const config::Setting& value : point.values)
    if (value.key != x_key)
      label += fmt::format("{}{} {}", label.empty() ? "" : ", ", value.key.substr(value.key.rfind('.') + 1),
                           fmt::join(value.values, "+"));
  return label.empty() ? "measured" : label;
}

const config::Axis& x_axis(const std::vector<config::Axis>& axes) {
  const auto varies = [](const config::Axis& axis) { return axis.values.size() > 1; };
  for (const config::Axis& axis : axes)
    if (axis.key == "parallel.gpus" && varies(axis)) return axis;
  const auto found = std::find_if(axes.begin(), axes.end(), varies);
  return found == axes.end() ? axes.front() : *found;
}

// Where values stand along x: themselves where all are numbers, else their places in the list.
std::vector<std::string> names_of(const config::Axis& axis) {
  std::vector<std::string> names;
  bool numbers = true;
  for (const config::Setting& value : axis.values) {
    names.push_back(fmt::format("{}", fmt::join(value.values, ", ")));
    const std::optional<double> read = number<double>(names.back());
    numbers = numbers && read && *read >= 0;
  }
  return numbers ? std::vector<std::string>{} : names;
}

}  // namespace

output::Table table_of(const std::vector<config::Axis>& axes, const std::vector<SweepPoint>& points) {
  output::Table table;
  for (const config::Axis& axis : axes) table.columns.push_back({axis.key, axis.key});
  for (const auto& [name, title] : {std::pair{"gpus", "GPUs"},
                                    {"load_s", "load s"},
                                    {"encode_s", "encode s"},
                                    {"denoise_s", "denoise s"},
                                    {"decode_s", "decode s"},
                                    {"total_s", "total s"},
                                    {"step_s", "s a step"},
                                    {"peak_gb", "peak GB"},
                                    {"speed_up", "speed-up"},
                                    {"efficiency", "efficiency"},
                                    {"denoise_speed_up", "of denoising"},
                                    {"pictures", "pictures"},
                                    {"predicted_denoise_s", "denoise predicted"},
                                    {"predicted_total_s", "total predicted"},
                                    {"error", "error"},
                                    {"folder", ""}})
    table.columns.push_back({name, title});
  for (const SweepPoint& point : points) {
    if (!point.measured && !point.fault) continue;
    Row& row = table.rows.emplace_back();
    for (const config::Setting& value : point.values) row.push_back(value_cell(value));
    if (point.measured) add_measured(point, points, row);
    row.resize(table.columns.size());
    if (point.predicted) {
      cell(table, row, "predicted_denoise_s") = point.predicted->denoise_s;
      cell(table, row, "predicted_total_s") = point.predicted->total_s();
    }
    if (point.fault) cell(table, row, "error") = config::valid_utf8(point.fault->message());
    row.back() = config::valid_utf8(point.folder.filename().string());
  }
  return table;
}

output::Plot plot_of(const std::vector<config::Axis>& axes, const std::vector<SweepPoint>& points) {
  const config::Axis& axis = x_axis(axes);
  const bool over_gpus = axis.key == "parallel.gpus";
  output::Plot plot{.title = over_gpus ? "speed-up of the whole run, from a cold start"
                                       : "seconds of the whole run, from a cold start",
                    .x_label = over_gpus ? "GPUs" : axis.key,
                    .y_label = over_gpus ? "speed-up" : "seconds",
                    .names = over_gpus ? std::vector<std::string>{} : names_of(axis),
                    .lines = {}};
  std::map<std::string, std::size_t> place;
  std::optional<double> fewest;
  double most = 0;
  for (const SweepPoint& point : points) {
    if (!point.measured) continue;
    const auto [found, fresh] = place.emplace(label_without(point, axis.key), plot.lines.size());
    if (fresh) plot.lines.push_back({.label = found->first, .points = {}});
    const config::Setting& value = *std::find_if(point.values.begin(), point.values.end(),
                                                 [&](const auto& other) { return other.key == axis.key; });
    const auto at = static_cast<std::size_t>(
        std::find_if(axis.values.begin(), axis.values.end(),
                     [&](const auto& other) { return other.values == value.values; }) -
        axis.values.begin());
    double x = static_cast<double>(at);
    if (over_gpus)
      x = gpus_of(point);
    else if (plot.names.empty())
      x = *number<double>(value.values.front());
    const SweepPoint& first = baseline(point, points);
    plot.lines[found->second].points.emplace_back(
        x, over_gpus ? speed_up(point, first) : point.measured->total_s);
    if (!fewest) fewest = gpus_of(first);
    most = std::max(most, gpus_of(point));
  }
  for (output::Plot::Line& line : plot.lines) std::sort(line.points.begin(), line.points.end());
  if (over_gpus && fewest)
    plot.lines.push_back({.label = "ideal", .points = {{*fewest, 1}, {most, most / *fewest}}, .ideal = true});
  return plot;
}

}  // namespace xdit::cli
