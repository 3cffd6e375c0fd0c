// Figures of runs and what held them back: from measurements that are made up here.
#include "output/benchmark.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "output/held_back.h"
#include "tests/catch.h"

namespace xdit::output {
namespace {

using nlohmann::json;

/// One GPU: start 0 - 1, files 1 - 3, then steps of `step_s` up to `steps`, decode 0.5 s.
Report one_gpu(std::int64_t steps, double step_s) {
  Report report;
  report.version = "1";
  report.model = "m";
  report.ranks = {{.rank = 0, .device = "GPU", .device_id = "GPU-0"}};
  report.phases = {{"start", 0, 1, 0, -1, -1}, {"load", 1, 3, 0, -1, -1}};
  double now = 3;
  for (std::int64_t step = 1; step <= steps; ++step, now += step_s)
    report.phases.push_back({"step", now, now + step_s, 0, 0, step});
  report.phases.push_back({"decode", now, now + 0.5, 0, 0, -1});
  report.wall_s = now + 0.5;
  return report;
}

/// Ranks that make one picture in steps from 0 to 10; `waited`: for each other.
Report on_cpus(const std::vector<double>& waited) {
  Report report;
  for (const double seconds : waited) {
    const auto rank = std::ssize(report.ranks);
    report.ranks.push_back({.rank = rank, .device = "cpu", .waited_s = seconds});
    report.phases.push_back({"step", 0, 10, rank, 0, 1});
  }
  report.wall_s = 10;
  return report;
}

const Finding* find(const std::vector<Finding>& findings, const std::string& what) {
  for (const Finding& finding : findings)
    if (finding.what == what) return &finding;
  return nullptr;
}

bool near(double a, double b) {
  return std::abs(a - b) < 1e-9;
}

Benchmark benchmark(double repeated_s) {
  Benchmark bench{.about = one_gpu(4, 0.5), .command = "xdit-gen bench", .driver = "580.1"};
  bench.rest = timed_of(one_gpu(4, 0.4));
  for (const double step : {0.5, 0.6, 0.7}) bench.repeats.push_back(timed_of(one_gpu(4, step)));
  bench.repeated_s = repeated_s;
  return bench;
}

}  // namespace

TEST_CASE("samples: quartiles lie between them as numpy's do") {
  const Samples one = summarise({3});
  CHECK((one.median == 3 && one.least == 3 && one.most == 3 && one.spread == 0));
  const Samples four = summarise({4, 1, 3, 2});
  CHECK((four.median == 2.5 && four.least == 1 && four.most == 4 && near(four.spread, 3.25 - 1.75)));
}

TEST_CASE("a benchmark's figures: cold, from rest, and the repeats' median and spread, a phase a row") {
  const json figures = json::parse(to_json(benchmark(12)))["figures"];
  const auto row = [&](const std::string& phase) {
    for (const json& each : figures)
      if (each["phase"] == phase) return each;
    return json();
  };
  CHECK(row("denoise")["cold_s"] == 2.0);
  CHECK(row("denoise")["rest_s"] == 1.6);
  CHECK(row("denoise")["median_s"] == 2.4);
  CHECK(row("denoise")["least_s"] == 2.0);
  CHECK(row("denoise")["most_s"] == 2.8);
  CHECK(row("denoise")["spread_s"] == 0.4);
  CHECK(row("step")["median_s"] == 0.6);
  CHECK(row("step")["samples"] == 12);
  CHECK(row("total")["median_s"] == 5.9);
  CHECK(row("load")["cold_s"] == 2.0);
}

TEST_CASE("runs of less than 5 s are not called sustained") {
  for (const double seconds : {4.9, 5.0}) {
    const Benchmark bench = benchmark(seconds);
    CHECK(json::parse(to_json(bench))["sustained"] == (seconds >= 5));
    const std::string text = to_markdown(bench);
    CHECK((text.find("| sustained |") != std::string::npos) == (seconds >= 5));
    CHECK((text.find("not sustained") != std::string::npos) == (seconds < 5));
    CHECK_THAT(text, ContainsSubstring("1 x GPU, driver 580.1"));
  }
}

TEST_CASE("clock and power are those of the steps") {
  Report report = one_gpu(4, 0.5);  // steps from 3 to 5
  report.readings = {{.at_s = 2, .clock_mhz = 1980, .power_w = 100},
                     {.at_s = 3.5, .clock_mhz = 1500, .power_w = 690, .slowed = "power"},
                     {.at_s = 4.5, .clock_mhz = 1400, .power_w = 700}};
  const std::optional<Timed::Gpus> gpus = timed_of(report).gpus;
  REQUIRE(gpus);
  CHECK((gpus->clock_mhz == 1450 && gpus->power_w == 695 && gpus->slowed == 0.5));
  CHECK(!timed_of(one_gpu(4, 0.5)).gpus);
}

TEST_CASE("what held a run back: start, files, and time in no phase, the longest first") {
  Report report = one_gpu(10, 0.4);  // 1 s of start, 2 of files, 4 of steps, 0.5 of decoding
  report.wall_s += 1.5;
  const std::vector<Finding> findings = held_back(report);
  REQUIRE(findings.size() == 3);
  CHECK((findings[0].what == "files" && near(findings[0].seconds, 2) && near(findings[0].of, 9)));
  CHECK((findings[1].what == "idle" && near(findings[1].seconds, 1.5)));
  CHECK((findings[2].what == "start" && near(findings[2].seconds, 1)));
  for (const Finding& finding : findings) CHECK(!finding.mend.empty());
  // Kernels that are loaded meanwhile would be waited for without files, too.
  report.phases.push_back({"warm_up", 1, 2.5, 0, -1, -1});
  CHECK(near(find(held_back(report), "files")->seconds, 0.5));
  CHECK(near(find(held_back(report), "warm-up")->seconds, 1.5));
  // Files that are read while prompts are encoded hold nothing back.
  report.phases.push_back({"text_encode", 1, 3, 0, -1, -1});
  CHECK(find(held_back(report), "files") == nullptr);
  CHECK(held_back(Report{}).empty());
  CHECK(to_text(findings) == "files 2.00 of 9.00 s, idle 1.50 of 9.00 s, start 1.00 of 9.00 s");
}

TEST_CASE("waits that every rank has are for peers, what others wait more is an uneven share") {
  const std::vector<Finding> even = held_back(on_cpus({2, 2}));
  REQUIRE(even.size() == 1);
  CHECK((even[0].what == "peers" && near(even[0].seconds, 2) && even[0].of == 10));
  const std::vector<Finding> uneven = held_back(on_cpus({0, 6, 6}));
  REQUIRE(uneven.size() == 1);
  CHECK((uneven[0].what == "shares" && near(uneven[0].seconds, 4)));  // 10 beside a mean of 6
  CHECK(held_back(on_cpus({3})).empty());
}

TEST_CASE("ranks without a picture, and waits that were not measured") {
  Report report = on_cpus({-1, -1});
  CHECK(held_back(report).empty());
  report.ranks.push_back({.rank = 2, .device = "cpu"});
  const std::vector<Finding> findings = held_back(report);
  REQUIRE(findings.size() == 1);
  CHECK((findings[0].what == "shares" && near(findings[0].seconds, 10 - 20.0 / 3)));
}

TEST_CASE("the host holds a run back in steps that it queues no faster than they are made") {
  Report report = one_gpu(10, 0.4);
  report.ranks[0].host_bound_s = 0;
  CHECK(find(held_back(report), "cpu") == nullptr);
  report.ranks[0].host_bound_s = 0.4;  // the first step
  const std::vector<Finding> findings = held_back(report);
  const Finding* cpu = find(findings, "cpu");
  REQUIRE(cpu != nullptr);
  CHECK((near(cpu->seconds, 0.4) && near(cpu->of, 4)));
}

TEST_CASE("throttling: the share of the steps' readings, and what to do about its cause") {
  Report report = one_gpu(10, 0.4);  // steps from 3 to 7
  report.readings = {
      {.at_s = 1, .slowed = "heat"}, {.at_s = 4, .slowed = "power"}, {.at_s = 5, .slowed = ""}};
  std::vector<Finding> findings = held_back(report);
  const Finding* by_power = find(findings, "throttling");
  REQUIRE(by_power != nullptr);
  CHECK((near(by_power->seconds, 2) && near(by_power->of, 4)));
  CHECK_THAT(by_power->mend, ContainsSubstring("power limit"));
  report.readings[1].slowed = "heat";
  findings = held_back(report);
  CHECK_THAT(find(findings, "throttling")->mend, ContainsSubstring("cooling"));
  report.readings[1].slowed = "";
  CHECK(find(held_back(report), "throttling") == nullptr);
}

}  // namespace xdit::output
