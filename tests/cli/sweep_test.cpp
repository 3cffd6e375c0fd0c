#include "cli/sweep_points.h"

#include <filesystem>

#include "cli/sweep_table.h"
#include "tests/catch.h"
#include "tests/cli/process.h"

namespace xdit::cli {
namespace {

const std::string kProfile =
    "model: {path: " + data("flux/tiny-dev") +
    "}\nprompt: a fox\nimage: {width: 64, height: 48}\n"
    "runtime: {device: cpu}\nparallel: {gather: 1}\noutput: {path: \"out/{seed}.png\"}\n"
    "sweep: {parallel.gpus: [1, 2, 3], sampling.steps: [20, 28]}\n";

}  // namespace

TEST_CASE("sweep --dry-run prints each point with its plan, or why it cannot run: exit 9; writes nothing") {
  const Folder folder;
  const std::string profile = folder.write("run.yaml", kProfile);
  const std::string out = (folder.path / "out").string();
  const Result result = xdit_gen({"sweep", profile, "--dry-run", "-o", out, "-H", "64", "--seed", "7"});
  INFO(result.err);
  CHECK(result.code == 9);  // the model's 3 heads are not for 2 ranks
  CHECK_THAT(result.out, ContainsSubstring("point 1 of 6: parallel.gpus 1, sampling.steps 20 -> " + out +
                                           "/gpus-1_steps-20\n") &&
                             ContainsSubstring("= 1 rank\n") && ContainsSubstring("512 text + 16 image") &&
                             ContainsSubstring("point 4 of 6: parallel.gpus 2, sampling.steps 28") &&
                             ContainsSubstring("  cannot run: ") && ContainsSubstring("ulysses 3"));
  CHECK(!std::filesystem::exists(out));
  CHECK(xdit_gen({"sweep", profile, "--dry-run", "--set", "parallel.gather=auto"}).code == 0);

  // Of a template, what stands before the pictures' names is the folder.
  const Result named = xdit_gen({"sweep", profile, "--dry-run", "--gpus", "1", "--seed", "7"},
                                {.environment = {"XDIT_GEN_STEPS=3"}});
  CHECK_THAT(named.out, ContainsSubstring(" -> out/gpus-1_steps-20\n"));
  CHECK_THAT(named.err,
             ContainsSubstring("warning: --gpus has no effect: the profile sweeps parallel.gpus") &&
                 ContainsSubstring("warning: XDIT_GEN_STEPS has no effect"));
}

TEST_CASE("a swept guidance wins over the scale's other name") {
  const Folder folder;
  const std::string profile = folder.write("run.yaml", "model: {path: " + data("sd/tiny-sdxl") +
                                                           "}\nprompt: a\nruntime: {device: cpu}\n"
                                                           "sweep: {sampling.guidance: [3, 4]}\n");
  const Result result = xdit_gen({"sweep", profile, "--dry-run", "--cfg-scale", "4"});
  INFO(result.err);
  CHECK(result.code == 0);
  CHECK_THAT(result.err,
             ContainsSubstring("warning: --cfg-scale has no effect: the profile sweeps sampling.guidance"));
}

TEST_CASE("sweep: what is wrong, where, and its exit code") {
  const Folder folder;
  const std::string profile = folder.write("run.yaml", kProfile);
  struct Case {
    std::vector<std::string> arguments;
    int code;
    const char* message;
  };
  const std::vector<Case> cases{
      {{}, 2, "no profile to sweep"},
      {{profile, "--format", "xml"}, 2, "--format: expected one of md|csv|json|jsonl, found 'xml'"},
      {{profile, "--profile", profile}, 2, "takes its profile as an argument"},
      {{profile, "--report", "r.json"}, 2, "--report: output.report: a sweep writes report.json"},
      {{profile, "--trace", "t.safetensors"}, 2, "--trace: output.trace"},
      {{profile, "-o", "out/{seed}"}, 2, "holds no {...} and no %"},
      {{profile, "-m", "owner/nothing"}, 4, "owner/nothing"},
      {{profile, "--steps", "0"}, 2, "--steps: sampling.steps: expected an integer"},
      {{profile, "--device", "cuda"}, 5, "no GPU"},
      {{(folder.path / "absent.yaml").string()}, 3, "absent.yaml"},
      {{folder.write("none.yaml", "prompt: a\n")}, 3, "none.yaml: no sweep: section"},
      {{folder.write("bad.yaml", "prompt: a\nsweep:\n  sampling.steps: [4, x]\n")}, 3, "bad.yaml:3:23: "},
  };
  for (const Case& wrong : cases) {
    CAPTURE(wrong.arguments);
    std::vector<std::string> arguments{"sweep"};
    arguments.insert(arguments.end(), wrong.arguments.begin(), wrong.arguments.end());
    arguments.emplace_back("--dry-run");
    const Result result = xdit_gen(arguments);
    CHECK(result.code == wrong.code);
    CHECK(result.out.empty());
    CHECK_THAT(result.err, ContainsSubstring(wrong.message));
  }
  CHECK_THAT(xdit_gen({"--profile", profile, "--dry-run"}).err, ContainsSubstring("xdit-gen sweep"));
}

TEST_CASE("a point's prediction is plan's, also where this machine has too few GPUs; its table shows it") {
  const auto prepared = [](const std::string& gpus) {
    GenerateOptions options;
    const auto set = [&](const char* key, const std::string& value) {
      options.settings.push_back({.key = key, .values = {value}, .where = key, .code = ExitCode::kUsage});
    };
    set("model.path", "FLUX.1-dev");
    set("model.load_format", "dummy");
    set("prompt", "fox");
    set("runtime.device", "cuda");
    set("parallel.gpus", gpus);
    const char* const none = nullptr;
    return prepare(options, &none, [] { return std::uint64_t{1}; });
  };
  const parallel::Machine two = parallel::read_machine("h200x2"), four = parallel::read_machine("h200x4");
  const Prepared on_two = prepared("2"), on_four = prepared("4");
  const auto of = [](const Prepared& run, const parallel::Machine& machine) {
    const std::optional<parallel::Prediction> predicted = prediction_of(run, machine);
    REQUIRE(predicted);
    return predicted->denoise_s;
  };
  CHECK(of(on_four, two) == of(on_four, four));
  CHECK(of(on_four, two) < of(on_two, two));
  CHECK_FALSE(prediction_of(on_two, {}));

  SweepPoint point{.values = {{"parallel.gpus", {"4"}, "", ExitCode::kUsage}}, .label = "", .folder = "x"};
  point.predicted = prediction_of(on_four, two);
  point.fault = Error(ExitCode::kDevice, "only 2 GPUs");
  const output::Table table = table_of({{"parallel.gpus", point.values}}, {point});
  REQUIRE(table.rows.size() == 1);
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    if (table.columns[i].name == "predicted_denoise_s")
      CHECK(table.rows[0][i] == output::Cell(point.predicted->denoise_s));
    if (table.columns[i].name == "error") CHECK(table.rows[0][i] == output::Cell("only 2 GPUs"));
  }
}

}  // namespace xdit::cli
