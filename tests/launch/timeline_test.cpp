// The timeline of a report: what each rank did at each moment, from Enter on.
#include <nlohmann/json.hpp>

#include "launch/clock.h"
#include "output/stretches.h"
#include "tests/catch.h"
#include "tests/cli/process.h"
#include "tests/launch/small_run.h"

namespace xdit::launch {
namespace {

using nlohmann::json;
using output::Stretch;

constexpr double kMostS = 0.05;
constexpr double kRounded = 1e-6;  // as a report's seconds are
constexpr int kTries = 5;          // a loaded machine makes gaps wider, and never narrower

Stretch stretch_of(const json& phase) {
  return {phase.at("start_s").get<double>(), phase.at("end_s").get<double>()};
}

// The longest piece of `whole` that none of the others covers.
double longest_gap(std::vector<Stretch> stretches, const Stretch& whole) {
  std::sort(stretches.begin(), stretches.end());
  stretches.emplace_back(whole.second, whole.second);
  double longest = 0;
  double at = whole.first;
  for (const auto& [from, to] : stretches) {
    longest = std::max(longest, std::min(from, whole.second) - at);
    at = std::max(at, to);
  }
  return longest;
}

// Of a rank: the longest of the moments in no phase, and of those of the phases named here in none of its
// parts.
double longest_unexplained(const json& phases, std::int64_t rank, double wall_s) {
  std::vector<Stretch> all;
  std::vector<std::pair<std::string, Stretch>> wholes, parts;
  for (const json& phase : phases) {
    if (phase.at("rank") != rank) continue;
    const std::string name = phase.at("name").get<std::string>();
    const std::size_t dot = name.find('.');
    (dot == std::string::npos ? wholes : parts).emplace_back(name.substr(0, dot), stretch_of(phase));
    if (dot == std::string::npos) all.push_back(stretch_of(phase));
  }
  REQUIRE(wholes.back().first == "finish");
  CHECK(wholes.back().second.second <= wall_s + kRounded);
  double longest = longest_gap(all, {0, wholes.back().second.second});
  for (const auto& [name, whole] : wholes) {
    std::vector<Stretch> of_it;
    for (const auto& [of, part] : parts)
      if (of == name && part.first >= whole.first - kRounded && part.second <= whole.second + kRounded)
        of_it.push_back(part);
    for (const char* opaque : {"start", "connect", "warm_up", "finish"})
      if (name == opaque) longest = std::max(longest, longest_gap(of_it, whole));
    std::erase_if(parts, [&](const auto& part) {
      return part.first == name && std::find(of_it.begin(), of_it.end(), part.second) != of_it.end();
    });
  }
  CHECK(parts.empty());  // each lies in its whole
  return longest;
}

}  // namespace

TEST_CASE("a report explains every 50 ms of each rank, and its seconds are those from Enter on") {
  const std::vector<std::string> refined{"-m",        cli::data("sd/tiny-sdxl"),
                                         "--refiner", cli::data("sd/tiny-refiner"),
                                         "--size",    "32x32",
                                         "--gpus",    "2",
                                         "--data",    "2",
                                         "-n",        "3"};
  for (const std::vector<std::string>& run :
       {std::vector<std::string>{"-m", XDIT_SOURCE "/configs/demo", "--size", "128x128", "--gpus", "1"},
        {"-m", XDIT_SOURCE "/configs/demo", "--size", "128x128", "--gpus", "2"},
        refined}) {
    CAPTURE(run);
    const cli::Folder folder;
    const std::string file = folder.path / "r.json";
    double unexplained_s = 1, outside_s = 1;
    for (int i = 0; i < kTries && std::max(unexplained_s, outside_s) > kMostS; ++i) {
      const double begun_s = now_s();
      std::vector<std::string> arguments{
          "-p",       "fox", "-s",       "1",  "-o",    folder.path / "{index}.png", "--steps",    "4",
          "--device", "cpu", "--report", file, "--set", "runtime.warm_up=true",      "--overwrite"};
      arguments.insert(arguments.end(), run.begin(), run.end());
      const cli::Result result = cli::xdit_gen(arguments, {.environment = {"OMP_NUM_THREADS=1"}});
      const double seconds = now_s() - begun_s;
      INFO(result.err);
      REQUIRE(result.code == 0);
      const json report = json::parse(test::contents(file));
      const double wall_s = report.at("wall_s").get<double>();
      CHECK(wall_s <= seconds);
      outside_s = std::min(outside_s, seconds - wall_s);
      double longest = 0;
      for (const json& rank : report.at("ranks"))
        longest = std::max(
            longest, longest_unexplained(report.at("phases"), rank.at("rank").get<std::int64_t>(), wall_s));
      unexplained_s = std::min(unexplained_s, longest);
      CHECK(report.at("phases").back().at("end_s") == report.at("wall_s"));
      CHECK(report.at("parts").at("rest").get<double>() <=
            longest * static_cast<double>(report["phases"].size()));
    }
    CHECK(unexplained_s <= kMostS);
    CHECK(outside_s <= kMostS);
  }
}

}  // namespace xdit::launch
