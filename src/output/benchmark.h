#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "output/report.h"
#include "output/table.h"

namespace xdit::output {

/// Samples of one figure: quartiles as numpy's (linear between samples).
struct Samples {
  double median = 0, least = 0, most = 0;
  double spread = 0;  ///< between the quartiles
};
[[nodiscard]] Samples summarise(std::vector<double> samples);  ///< of one at least

/// A run of a benchmark.
struct Timed {
  /// What GPUs showed during its steps, on average.
  struct Gpus {
    double clock_mhz = 0, power_w = 0;
    double slowed = 0;  ///< share of the readings in which something held the clock down
  };
  double total_s = 0;
  std::vector<std::pair<std::string, double>> seconds;  ///< as seconds_in_order
  std::vector<double> steps_s;                          ///< each as long as on its slowest rank
  std::optional<Gpus> gpus;
};
[[nodiscard]] Timed timed_of(const Report& report);

/// So long must runs follow each other for their figures to be called sustained.
inline constexpr double kSustainedS = 5;

/// One run, timed again and again on ranks that stay.
struct Benchmark {
  Report about;  ///< the first run, from the start of its ranks
  std::string command{};
  std::string driver{};          ///< version, or empty
  Timed rest{};                  ///< the run after warming up and a pause
  std::vector<Timed> repeats{};  ///< one at least, one behind the other
  double repeated_s = 0;         ///< from the first repeat to the end of the last
  double elapsed_s = 0;          ///< of the whole benchmark
  [[nodiscard]] bool sustained() const { return repeated_s >= kSustainedS; }
};

/// A row a phase: cold, from rest, and the repeats' median, least, most and spread.
[[nodiscard]] Table table_of(const Benchmark& benchmark);
/// For people: what ran, the table, whether it is sustained.
[[nodiscard]] std::string to_markdown(const Benchmark& benchmark);
/// Indented; every run's figures with it.
[[nodiscard]] std::string to_json(const Benchmark& benchmark);

}  // namespace xdit::output
