#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "output/finish.h"
#include "output/report.h"
#include "output/stretches.h"
#include "output/trace.h"
#include "tests/catch.h"
#include "tests/scratch.h"
#include "weights/safetensors.h"

using xdit::DType;
using xdit::Error;
using xdit::ExitCode;
using xdit::output::Report;
using xdit::output::TraceTensor;

namespace {

Report report_of_two_ranks() {
  Report report;
  report.version = "0.1.0";
  report.model = "FLUX.1-dev";
  report.model_hash = "0123456789";
  report.settings = {{"sampling.steps", "2"}, {"prompt", "\xff \u732b"}};
  report.grid = {{"ulysses", 2}};
  report.pictures = {"out/42.png"};
  report.wall_s = 10.5;
  for (std::int64_t rank = 0; rank < 2; ++rank) {
    const double slower = 0.25 * static_cast<double>(rank);
    report.phases.push_back({.name = "load", .start_s = 0, .end_s = 4 + slower, .rank = rank});
    for (std::int64_t step = 1; step <= 2; ++step)
      report.phases.push_back({.name = "step",
                               .start_s = 4 + static_cast<double>(step),
                               .end_s = 5 + slower + static_cast<double>(step),
                               .rank = rank,
                               .picture = 0,
                               .step = step});
    report.ranks.push_back({.rank = rank,
                            .device = "GPU",
                            .device_id = "GPU-" + std::to_string(rank),
                            .held_s = 10,
                            .peak_device_bytes = 1U << 30U,
                            .peak_host_bytes = 5,
                            .bytes_read = 6,
                            .bytes_sent = 7});
  }
  return report;
}

const std::string& bytes_of(const std::filesystem::path& path, std::string& to) {
  return to = xdit::read_file(path, ExitCode::kOutput);
}

template <class T>
TraceTensor tensor(const std::string& name, DType dtype, const std::vector<std::int64_t>& shape,
                   const std::vector<T>& values) {
  return {.name = name, .dtype = dtype, .shape = shape, .bytes = std::as_bytes(std::span(values))};
}

}  // namespace

TEST_CASE("the parts of a run are named as plan's, count each moment once and add up to the whole") {
  Report report = report_of_two_ranks();  // rank 1 ends last: load to 4.25, steps of 1.25 from 5 and 6
  const auto add = [&](const char* name, double start_s, double end_s, std::int64_t rank = 1) {
    report.phases.push_back({.name = name, .start_s = start_s, .end_s = end_s, .rank = rank});
  };
  add("start", 0, 1);
  add("text_encode", 4, 4.5);
  add("warm_up", 1, 4.75);
  add("prepare", 4.75, 5);
  add("decode", 7.25, 8);
  add("write", 7.75, 8.5);
  add("write", 2, 8, 0);
  add("finish", 9, 10.5);
  const std::vector<std::pair<std::string, double>> expected{
      {"start", 1},     {"load", 3.25},   {"encode", 0.25}, {"warm_up", 0.25},
      {"denoise", 2.5}, {"decode", 0.75}, {"write", 0.5},   {"finish", 1.5},
      {"rest", 0.5},    {"total", 10.5},  {"step", 1.25}};
  CHECK(xdit::output::seconds_by_part(report) == expected);
  CHECK(nlohmann::json::parse(xdit::output::to_json(report)).at("parts").at("denoise") == 2.5);
  CHECK(xdit::output::seconds_by_part(Report{.wall_s = 2}).back() ==
        std::pair<std::string, double>("total", 2));
}

TEST_CASE("parts of a phase are in the timeline and in no sum; a rank's finish follows its last phase") {
  Report report = report_of_two_ranks();  // steps up to 7 and 7.25
  const std::map<std::string, double> before = xdit::output::seconds_by_phase(report);
  report.phases.push_back({.name = "load.encoders", .start_s = 0, .end_s = 3, .rank = 1});
  CHECK(xdit::output::seconds_by_phase(report) == before);
  report.phases.push_back({.name = "finish.release", .start_s = 7, .end_s = 7.5, .rank = 0});
  xdit::output::add_finish(report, 0, 9, /*ends=*/true);
  xdit::output::add_finish(report, 1, 8, /*ends=*/false);
  xdit::output::end_at(report, 10);  // of rank 1, which was at work last
  const auto stretches = [&](const std::string& name, std::int64_t rank) {
    std::vector<xdit::output::Stretch> found;
    for (const xdit::output::Phase& phase : report.phases)
      if (phase.name == name && phase.rank == rank) found.emplace_back(phase.start_s, phase.end_s);
    return found;
  };
  using Stretches = std::vector<xdit::output::Stretch>;
  CHECK(stretches("finish", 0) == Stretches{{7, 9}});
  CHECK(stretches("finish.exit", 0) == Stretches{{7.5, 9}});
  CHECK(stretches("finish", 1) == Stretches{{7.25, 10}});
  CHECK(report.wall_s == 10);
  CHECK(xdit::output::seconds_by_phase(report).at("finish") == 2.75);  // not the wait of rank 0
  report.phases.push_back({.name = "finish", .start_s = 1, .end_s = 10, .rank = 2});  // had no picture
  CHECK(xdit::output::seconds_by_phase(report).at("finish") == 2.75);
  Report empty;
  xdit::output::end_at(empty, 2);
  CHECK((empty.phases.empty() && empty.wall_s == 2));
}

TEST_CASE("what a table shows of a report: the slowest rank, overlapping loads once") {
  const xdit::tests::Scratch scratch;
  const std::filesystem::path path = scratch.path() / "report.json";
  Report report = report_of_two_ranks();
  report.phases.push_back({.name = "load_encoders", .start_s = 3, .end_s = 5, .rank = 0});
  xdit::output::write_report(report, path, false);
  const xdit::output::Measured measured = xdit::output::read_measured(path, ExitCode::kOutput);
  CHECK(measured.load_s == 5);  // rank 0: 0 to 4 and 3 to 5; rank 1: 0 to 4.25
  CHECK(measured.encode_s == 0);
  CHECK(measured.denoise_s == 2.25);  // rank 1: 5 to 6.25 and 6 to 7.25
  CHECK(measured.step_s == 1.125);
  CHECK(measured.total_s == 10.5);
  CHECK(measured.peak_bytes == 1U << 30U);
  CHECK(measured.version == "0.1.0");
  CHECK(measured.model_hash == "0123456789");
  report.ranks[0].peak_device_bytes = report.ranks[1].peak_device_bytes = 0;
  xdit::output::write_report(report, path, true);
  CHECK(xdit::output::read_measured(path, ExitCode::kOutput).peak_bytes == 5);
  xdit::write_file_atomically(path, "{\"phases\": []}", true);
  CHECK_THROWS_WITH(xdit::output::read_measured(path, ExitCode::kOutput),
                    ContainsSubstring("not a report of xdit-gen"));
}

TEST_CASE("a report sums phases over the slowest rank and GPUs once", "[report]") {
  Report report = report_of_two_ranks();
  const std::map<std::string, double> seconds = xdit::output::seconds_by_phase(report);
  CHECK(seconds == std::map<std::string, double>{{"load", 4.25}, {"step", 2.5}});
  CHECK(xdit::output::gpu_seconds(report) == 20);
  report.ranks[1].device_id = report.ranks[0].device_id;  // two ranks of one GPU
  report.ranks[1].held_s = 11;
  CHECK(xdit::output::gpu_seconds(report) == 11);
  report.ranks[0].device_id = report.ranks[1].device_id = "";  // CPUs
  CHECK(xdit::output::gpu_seconds(report) == 0);
}

TEST_CASE("a report is JSON with every figure", "[report]") {
  const xdit::tests::Scratch scratch;
  const std::filesystem::path path = scratch.path() / "report.json";
  xdit::output::write_report(report_of_two_ranks(), path, false);
  CHECK_THROWS_AS(xdit::output::write_report(report_of_two_ranks(), path, false), Error);
  std::string text;
  const nlohmann::json json = nlohmann::json::parse(bytes_of(path, text));
  CHECK(json["wall_s"] == 10.5);
  CHECK(json["gpu_seconds"] == 20);
  CHECK(json["seconds"]["step"] == 2.5);
  CHECK(json["grid"]["ulysses"] == 2);
  CHECK(json["settings"]["prompt"] == "\ufffd \u732b");
  CHECK(json["pictures"] == nlohmann::json{"out/42.png"});
  REQUIRE(json["phases"].size() == 6);
  CHECK(json["phases"][0] == nlohmann::json{{"name", "load"}, {"rank", 0}, {"start_s", 0.0}, {"end_s", 4.0}});
  CHECK(json["phases"][2]["step"] == 2);
  CHECK(json["phases"][2]["picture"] == 0);
  REQUIRE(json["ranks"].size() == 2);
  CHECK(json["ranks"][1]["rank"] == 1);
  CHECK(json["ranks"][1]["peak_device_bytes"] == 1U << 30U);
  CHECK(json["ranks"][1]["bytes_sent"] == 7);
  CHECK(nlohmann::json::parse(xdit::output::to_json(Report{}))["phases"].empty());
}

TEST_CASE("a trace is a sound safetensors file", "[trace]") {
  const xdit::tests::Scratch scratch;
  const std::filesystem::path path = scratch.path() / "trace.safetensors";
  const std::vector<std::uint8_t> flags{1, 0, 1};
  const std::vector<float> image{0.5F, -1.0F, 2.0F, 3.0F, 4.0F, 5.0F};
  const std::vector<std::int64_t> ids{49406, 49407};
  const std::vector<float> scalar{7.0F};
  const std::vector<TraceTensor> tensors{tensor("flags", DType::kBool, {3}, flags),
                                         tensor("image", DType::kF32, {1, 2, 3}, image),
                                         tensor("clip_ids", DType::kI64, {1, 2}, ids),
                                         tensor("empty", DType::kF32, {0, 4}, std::vector<float>{}),
                                         tensor("scalar \"x\" \u732b", DType::kF32, {}, scalar)};
  xdit::output::write_safetensors(path, tensors, {{"format", "pt"}}, false);
  std::string file;
  bytes_of(path, file);
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  REQUIRE(length % 8 == 0);
  const nlohmann::json header = nlohmann::json::parse(file.substr(8, length));
  CHECK(header["__metadata__"]["format"] == "pt");
  std::map<std::uint64_t, std::uint64_t> spans;
  for (const TraceTensor& one : tensors) {
    CAPTURE(one.name);
    const nlohmann::json& entry = header[one.name];
    CHECK(entry["dtype"] == xdit::safetensors_name(one.dtype));
    CHECK(entry["shape"] == one.shape);
    const std::uint64_t begin = entry["data_offsets"][0];
    const std::uint64_t end = entry["data_offsets"][1];
    CHECK(begin % static_cast<std::uint64_t>(xdit::size_of(one.dtype)) == 0);
    REQUIRE(end - begin == one.bytes.size());
    const auto* bytes = reinterpret_cast<const std::byte*>(file.data() + 8 + length + begin);
    CHECK(std::equal(one.bytes.begin(), one.bytes.end(), bytes));
    if (end > begin) spans[begin] = end;
  }
  std::uint64_t at = 0;
  for (const auto& [begin, end] : spans) {
    CHECK(begin == at);
    at = end;
  }
  CHECK(8 + length + at == file.size());
  const xdit::weights::TensorTable table = xdit::weights::read_safetensors(path);
  CHECK(table.tensors.size() == tensors.size());
  CHECK(table.tensors.at("image").shape == std::vector<std::int64_t>{1, 2, 3});
  CHECK_THROWS_AS(xdit::output::write_safetensors(path, tensors, {}, false), Error);
  xdit::output::write_safetensors(path, {}, {}, true);
  CHECK(xdit::weights::read_safetensors(path).tensors.empty());
}

TEST_CASE("a trace refuses tensors that contradict themselves", "[trace]") {
  const xdit::tests::Scratch scratch;
  const std::vector<float> values{1, 2};
  const TraceTensor good = tensor("x", DType::kF32, {2}, values);
  for (const std::vector<TraceTensor>& bad : {std::vector{good, good},
                                              {tensor("x", DType::kF32, {3}, values)},
                                              {tensor("__metadata__", DType::kF32, {2}, values)}}) {
    CHECK_THROWS_AS(xdit::output::write_safetensors(scratch.path() / "x", bad, {}, false), Error);
    CHECK_FALSE(std::filesystem::exists(scratch.path() / "x"));
  }
}
