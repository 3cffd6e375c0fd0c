#include <csignal>
#include <nlohmann/json.hpp>
#include <set>

#include "core/dtype.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/nearest.h"
#include "core/stop.h"
#include "tests/catch.h"
#include "tests/scratch.h"

using xdit::DType;
using xdit::Error;
using xdit::ExitCode;

namespace {

std::string json_fault(const std::string& text) {
  try {
    static_cast<void>(xdit::parse_json(text, "x.json", ExitCode::kModel));
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kModel);
    CHECK(error.where() == "x.json");
    return error.message();
  }
  return {};
}

}  // namespace

TEST_CASE("dtype names lead back to the dtype, and are all different", "[dtype]") {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    const auto dtype = static_cast<DType>(i);
    names.insert(xdit::safetensors_name(dtype));
    names.insert(xdit::flag_name(dtype));
    CHECK(xdit::from_safetensors_name(xdit::safetensors_name(dtype)) == dtype);
    CHECK(xdit::from_flag_name(xdit::flag_name(dtype)) == dtype);
  }
  CHECK(names.size() == 2 * (static_cast<std::size_t>(DType::kBool) + 1));
  CHECK(xdit::size_of(DType::kBF16) == 2);
  CHECK(xdit::size_of(DType::kF8E4M3) == 1);
  CHECK(xdit::size_of(DType::kI64) == 8);
  CHECK(xdit::from_flag_name("bfloat16") == DType::kBF16);
  CHECK_FALSE(xdit::from_flag_name("BF16"));
  CHECK_FALSE(xdit::from_safetensors_name("bf16"));
}

TEST_CASE("an error shows its parts", "[error]") {
  const Error full(ExitCode::kModel, "no such tensor", "a.safetensors", "another file");
  CHECK(std::string(full.what()) == "a.safetensors: no such tensor\n  try: another file");
  CHECK(std::string(Error(ExitCode::kUsage, "bad").what()) == "bad");
  const auto broken = [] { XDIT_ASSERT(1 + 1 == 3); };
  try {
    broken();
    FAIL("the assertion passed");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kInternal);
    CHECK_THAT(error.what(), ContainsSubstring("1 + 1 == 3"));
  }
}

TEST_CASE("JSON is read strictly", "[json]") {
  CHECK(xdit::parse_json(R"({"a": [1, {"b": null}], "c": {"a": 2}})", "x", ExitCode::kModel)["a"][0] == 1);
  CHECK_THAT(json_fault(R"({"a": 1, "a": 2})"), ContainsSubstring("duplicate key \"a\""));
  CHECK_THAT(json_fault(R"({"x": {"a": 1}, "y": [{"b": 1, "b": 2}]})"),
             ContainsSubstring("duplicate key \"b\""));
  for (const char* text :
       {"", "{", "[1,]", "nul", "{} {}", "[1] x", "{'a': 1}", "[\"\xff\"]", "[01]", "[NaN]", "[1e999]"}) {
    CAPTURE(text);
    CHECK_THAT(json_fault(text), ContainsSubstring("not valid JSON"));
  }
  CHECK(json_fault(std::string(64, '[') + std::string(64, ']')).empty());
  CHECK_THAT(json_fault(std::string(66, '[') + std::string(66, ']')), ContainsSubstring("nested deeper"));
  CHECK_THAT(json_fault(std::string(1'000'000, '[')), ContainsSubstring("nested deeper"));
}

TEST_CASE("Python's infinities are null, in files and outside texts", "[json]") {
  const xdit::tests::Scratch folder;
  const std::filesystem::path file = folder.path() / "config.json";
  const auto read = [&](const std::string& text) {
    xdit::write_file_atomically(file, text, true);
    return xdit::read_json(file, ExitCode::kModel);
  };
  CHECK(read(R"({"lambda_min_clipped": -Infinity, "a": [NaN,Infinity]})") ==
        xdit::Json{{"lambda_min_clipped", nullptr}, {"a", {nullptr, nullptr}}});
  CHECK(read(R"({"-Infinity": "a \" NaN \\", "b": "Infinity"})") ==
        xdit::Json{{"-Infinity", "a \" NaN \\"}, {"b", "Infinity"}});
  CHECK_THROWS_AS(read("{\"a\": -Infinite}"), Error);
  CHECK_THROWS_AS(xdit::parse_json("[NaN]", "text", ExitCode::kModel), Error);
}

TEST_CASE("the nearest name", "[nearest]") {
  const std::vector<std::string> names{"steps", "scheduler", "seed", "shard-weights"};
  CHECK(xdit::nearest("step", names) == "steps");
  CHECK(xdit::nearest("SHARD_WEIGHTS", names) == "shard-weights");
  CHECK(xdit::nearest("shceduler", names) == "scheduler");
  CHECK(xdit::nearest("stpes", std::vector<std::string>{"stops", "steps"}) == "steps");
  CHECK(xdit::nearest("resolution", names).empty());
  CHECK(xdit::nearest("", {}).empty());
  CHECK(xdit::suggest("sede", names) == "did you mean seed? (one of: steps, scheduler, seed, shard-weights)");
  CHECK(xdit::suggest("resolution", names) == "one of: steps, scheduler, seed, shard-weights");
}

TEST_CASE("a stop is thrown with the signal's code", "[stop]") {
  xdit::StopToken stop;
  CHECK_NOTHROW(stop.check());
  const auto code = [&](int signal) {
    stop.request(signal);
    try {
      stop.check();
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::kOk;
  };
  CHECK(code(SIGINT) == ExitCode::kInterrupted);
  CHECK(code(SIGTERM) == ExitCode::kTerminated);
}
