#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"

namespace xdit::output {

/// A stretch of time on one rank, in seconds since the run began. Phases may overlap. "start.libraries" is a
/// part of the "start" around it, which sums and tables do not count again.
struct Phase {
  std::string name;  ///< "start", "load", "text_encode", "step", "decode", "write", "finish", ...
  double start_s = 0;
  double end_s = 0;
  std::int64_t rank = 0;
  std::int64_t picture = -1;  ///< index of the picture, or -1 for the whole run
  std::int64_t step = -1;     ///< 1-based, or -1
};

/// What a rank used.
struct RankUse {
  std::int64_t rank = 0;
  std::string device;       ///< "NVIDIA H100 80GB HBM3" or "cpu"
  std::string device_id{};  ///< the GPU's UUID; empty: not a GPU
  double held_s = 0;        ///< seconds for which the device was held
  std::uint64_t peak_device_bytes = 0;
  std::uint64_t peak_host_bytes = 0;
  std::uint64_t bytes_read = 0;  ///< from files
  std::uint64_t bytes_sent = 0;  ///< to other ranks, and of their weights read
  double waited_s = -1;          ///< in steps, for other ranks; -1: not measured
  double host_bound_s = -1;      ///< of steps that ended as soon as they were queued; -1: nothing is queued
};

/// What a GPU showed at a moment of the run.
struct Reading {
  double at_s = 0;
  std::string device_id{};
  double clock_mhz = 0;  ///< of its multiprocessors
  double power_w = 0;
  std::string slowed{};  ///< what held the clock down: "power", "heat", both, or nothing
};

/// A run, measured: --report. Each moment of a rank lies in one of its phases.
struct Report {
  std::string version;
  std::string model;
  std::string model_hash;
  std::map<std::string, std::string> settings;  ///< key of the profile -> value
  std::map<std::string, std::int64_t> grid;     ///< "ulysses" -> 2
  std::vector<std::filesystem::path> pictures;
  std::vector<Phase> phases;
  std::vector<RankUse> ranks;
  std::vector<Reading> readings;
  double wall_s = 0;
};

/// The cost of the run: seconds for which each GPU was held, summed over GPUs (one GPU of two ranks counts
/// once).
[[nodiscard]] double gpu_seconds(const Report& report);

/// Seconds by phase name: the sum over a rank's phases of that name, of the rank where it is largest.
[[nodiscard]] std::map<std::string, double> seconds_by_phase(const Report& report);
/// The same in the order of the run.
[[nodiscard]] std::vector<std::pair<std::string, double>> seconds_in_order(const Report& report);

/// Seconds of the run under the names that `plan` predicts them by, of the rank that worked last: start,
/// load, encode, warm_up, denoise, decode, write, finish, each without what those before it cover, then the
/// "rest", which is in no phase. They add up to "total"; "step" is the mean one.
[[nodiscard]] std::vector<std::pair<std::string, double>> seconds_by_part(const Report& report);

/// Indented JSON.
[[nodiscard]] std::string to_json(const Report& report);

/// What a table shows of a report: seconds of the rank where a part took longest.
struct Measured {
  double load_s = 0;  ///< of weights, encoders' and the denoiser's together where they overlap
  double encode_s = 0;
  double denoise_s = 0;
  double decode_s = 0;
  double total_s = 0;            ///< of everything, from the start of processes to the last file
  double step_s = 0;             ///< a step of one picture
  std::uint64_t peak_bytes = 0;  ///< of the rank with most: on its device; without one, on the host
  std::string version;           ///< of the xdit-gen that ran
  std::string model_hash;
};
/// Of a file that write_report wrote. Every fault is Error(code).
[[nodiscard]] Measured read_measured(const std::filesystem::path& report, ExitCode code);

/// Writes it atomically; faults are Error(kOutput).
void write_report(const Report& report, const std::filesystem::path& path, bool overwrite);

}  // namespace xdit::output
