#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "config/settings.h"
#include "output/metadata.h"
#include "tests/catch.h"
#include "tests/cli/process.h"
#include "weights/model_files.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The value of a key in what --dry-run prints.
std::string value(const Result& result, const std::string& key) {
  INFO(result.err);
  REQUIRE(result.code == 0);
  const Folder folder;
  const std::vector<config::Layer> layers{config::read_profile(folder.write("printed.yaml", result.out))};
  return config::winner(layers, key)->values.front();
}

std::string png_of(const Folder& folder, const std::string& model) {
  config::RunSpec spec;
  spec.prompts = {"a fox, \"red\"\n\xF0\x9F\xA6\x8A"};
  spec.image = {.width = 64, .height = 48, .count = 1};
  spec.sampling.steps = 7;
  spec.sampling.guidance = 1.75;
  spec.sampling.shift = 3;
  spec.sampling.seeds = {18446744073709551615U};
  spec.model.dtype = DType::kF32;
  const weights::ModelFiles files = weights::open_model(model);
  const output::PictureRecord record =
      output::record_of(spec, config::pictures(spec).front(), files.name, weights::model_hash(files));
  const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(64) * 48 * 3, 9);
  return folder.write("made.png", output::encode_png(pixels, 64, 48, output::text_chunks(record)));
}

}  // namespace

TEST_CASE("built-in < family < model folder < profile < environment < --set < flag") {
  const Folder folder;
  const std::string dev = data("flux/tiny-dev");
  const std::string own = (folder.path / "schnell").string();
  fs::copy(data("flux/tiny-schnell"), own, fs::copy_options::recursive);
  const auto steps = [&](const std::string& model, const std::vector<std::string>& more = {},
                         const Run& run = {}) {
    std::vector<std::string> arguments{"-m", model, "-p", "a"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return value(dry_run(arguments, run), "sampling.steps");
  };
  CHECK(steps(dev) == "28");
  CHECK(steps(own) == "4");
  CHECK(value(dry_run({"-m", own, "-p", "a"}), "sampling.guidance") == "0");
  CHECK(value(dry_run({"-m", own, "-p", "a"}), "sampling.max_sequence_length") == "256");
  std::ofstream(folder.path / "schnell" / "xdit-gen.yaml") << "sampling: {steps: 16}\n";
  CHECK(steps(own) == "16");
  const std::string profile = folder.write("run.yaml", "sampling: {steps: 17}\n");
  CHECK(steps(own, {"--profile", profile}) == "17");
  const Run environment{.environment = {"XDIT_GEN_STEPS=18"}};
  CHECK(steps(own, {"--profile", profile}, environment) == "18");
  CHECK(steps(own, {"--profile", profile, "--set", "sampling.steps=19"}, environment) == "19");
  CHECK(steps(own, {"--steps", "20", "--profile", profile, "--set", "sampling.steps=19"}, environment) ==
        "20");
  CHECK(steps(own, {"--num_inference_steps=21", "--num-inference-steps", "22"}) == "22");
}

TEST_CASE("flags reach their keys as they were typed") {
  const Result result = dry_run({"-m",
                                 data("flux/tiny-dev"),
                                 "-p",
                                 "{}",
                                 "-p",
                                 "-x --steps",
                                 "-p",
                                 "[a, b]",
                                 "-p",
                                 "",
                                 "-n",
                                 "-",
                                 "--size",
                                 "64x48",
                                 "-W",
                                 "32",
                                 "-s",
                                 "3,5-6",
                                 "-s",
                                 "9",
                                 "--no_metadata",
                                 "--overwrite",
                                 "--no-shard-weights",
                                 "--cfg_scale",
                                 "2",
                                 "--guidance",
                                 "0",
                                 "-o",
                                 "x/{index}.png",
                                 "--gpus",
                                 "1,",
                                 "--set",
                                 "parallel.gpus=1",
                                 "--json"});
  REQUIRE(result.code == 0);
  const json settings = json::parse(result.out).at("settings");
  CHECK(settings.at("prompt") == json{"{}", "-x --steps", "[a, b]", ""});
  CHECK(settings.at("negative_prompt") == "-");
  CHECK(settings.at("image.width") == 32);
  CHECK(settings.at("image.height") == 48);
  CHECK(settings.at("sampling.seed") == "3,5-6,9");
  CHECK(settings.at("output.metadata") == false);
  CHECK(settings.at("output.overwrite") == true);
  CHECK(settings.at("parallel.shard_weights") == false);
  CHECK(settings.at("parallel.gpus") == "1,");
  CHECK(json::parse(result.out).at("pictures").size() == 16);
}

TEST_CASE("a model's own scheduler is taken by its class and algorithm, or named where no sampler is it") {
  const Folder folder;
  fs::copy(data("sd/tiny-sdxl"), folder.path / "model", fs::copy_options::recursive);
  const std::string model = (folder.path / "model").string();
  const auto with = [&](const std::string& type, const std::string& algorithm) {
    const json config{{"_class_name", type}, {"algorithm_type", algorithm}};
    std::ofstream(folder.path / "model/scheduler/scheduler_config.json") << config;
    return dry_run({"-m", model, "-p", "a"});
  };
  const std::string multistep = "DPMSolverMultistepScheduler";
  CHECK(value(with(multistep, "dpmsolver++"), "sampling.scheduler") == "dpm++-2m");
  CHECK(value(with(multistep, "sde-dpmsolver++"), "sampling.scheduler") == "dpm++-2m-sde");
  for (const auto& [type, algorithm] : {std::pair{multistep, std::string("dpmsolver")},
                                        {multistep, "sde-dpmsolver"},
                                        {"DPMSolverSinglestepScheduler", "dpmsolver++"}}) {
    CAPTURE(type, algorithm);
    const Result refused = with(type, algorithm);
    CHECK(refused.code == 4);
    CHECK_THAT(refused.err, ContainsSubstring("'" + type));
    CHECK(value(dry_run({"-m", model, "-p", "a", "--scheduler", "euler"}), "sampling.scheduler") == "euler");
  }
}

TEST_CASE("what --dry-run prints is a profile of the same run, drawn seed included") {
  const Folder folder;
  const Result first = dry_run({"-m", data("flux/tiny-dev"), "-p", "a: [b] # c"});
  REQUIRE(first.code == 0);
  CHECK_THAT(first.err, ContainsSubstring("xdit-gen: seed " + value(first, "sampling.seed")));
  const Result again = xdit_gen({"--profile", folder.write("again.yaml", first.out), "--dry-run"});
  CHECK(again.out == first.out);
  CHECK(again.err.empty());
  CHECK(value(dry_run({"-m", data("flux/tiny-dev"), "-p", "a"}), "sampling.seed") !=
        value(first, "sampling.seed"));
  CHECK(dry_run({"-m", data("flux/tiny-dev"), "-p", "a", "--quiet"}).err.empty());
}

TEST_CASE("-p - reads the prompt from stdin") {
  const std::vector<std::string> arguments{"-m", data("flux/tiny-dev"), "-p", "-"};
  CHECK(value(dry_run(arguments, {.input = "a fox\nat dawn\r\n\n"}), "prompt") == "a fox\nat dawn");
  CHECK(dry_run(arguments).code == 2);
  CHECK(dry_run(arguments, {.input = "\n\r\n"}).code == 2);
  CHECK(value(dry_run({"-m", data("flux/tiny-dev"), "-p", ""}), "prompt").empty());
  CHECK(dry_run(arguments, {.input = std::string((1U << 20U) + 1, 'a')}).code == 2);
}

TEST_CASE("a negative prompt without cfg_scale is warned of") {
  const std::vector<std::string> arguments{"-m", data("flux/tiny-dev"), "-p", "a", "-n", "blur", "-s", "1"};
  CHECK_THAT(dry_run(arguments).err, ContainsSubstring("warning: the negative prompt has no effect"));
}

TEST_CASE("exit 3: a profile's fault names file, line and column") {
  const Folder folder;
  const Result result = dry_run({"--profile", folder.write("run.yaml", "prompt: a\nsampling: {setps: 4}\n")});
  CHECK(result.code == 3);
  CHECK_THAT(result.err, ContainsSubstring("run.yaml:2:12: unknown key 'setps' in sampling") &&
                             ContainsSubstring("try: steps"));
  CHECK(dry_run({"--profile", (folder.path / "absent.yaml").string()}).code == 3);
}

TEST_CASE("exit 4: models that are not there or do not fit") {
  const Folder folder;
  const auto fault = [&](const std::string& model) {
    const Result result = dry_run({"-m", model, "-p", "a"});
    CHECK(result.code == 4);
    CHECK(result.out.empty());
    return result.err;
  };
  CHECK_THAT(fault("owner/nothing"), ContainsSubstring("owner/nothing"));
  CHECK_THAT(fault((folder.path / "nothing").string()), ContainsSubstring("no such file or folder"));
  CHECK_THAT(fault(folder.write("model.ckpt", "x")), ContainsSubstring("model.ckpt"));
  CHECK_THAT(fault(folder.write("model.safetensors", "x")), ContainsSubstring("model.safetensors"));
  const fs::path own = folder.path / "dev";
  fs::copy(data("flux/tiny-dev"), own, fs::copy_options::recursive);
  std::ofstream(own / "xdit-gen.yaml") << "output: {path: /etc/x.png}\n";
  CHECK_THAT(fault(own.string()),
             ContainsSubstring("xdit-gen.yaml:1:16") && ContainsSubstring("image and sampling only"));
}

TEST_CASE("exit 5: no GPU") {
  const Result result = xdit_gen({"-m", data("flux/tiny-dev"), "-p", "a", "--dry-run"});
  CHECK(result.code == 5);
  CHECK_THAT(result.err, ContainsSubstring("--device cpu"));
}

TEST_CASE("exit 8: output that cannot be written") {
  const Folder folder;
  const std::string there = folder.write("1.png", "old");
  const std::vector<std::string> arguments{"-m", data("flux/tiny-dev"), "-p", "a", "-s", "1", "-o", there};
  const Result result = dry_run(arguments);
  CHECK(result.code == 8);
  CHECK_THAT(result.err, ContainsSubstring("1.png") && ContainsSubstring("--overwrite"));
  CHECK(xdit_gen({"list", "models"}, {.output = "/dev/full"}).code == 8);
}

TEST_CASE("inspect: a model, its hash, and what it lacks") {
  const Folder folder;
  const Result whole = xdit_gen({"inspect", data("flux/tiny-schnell"), "--json"});
  CHECK(whole.code == 0);
  json about = json::parse(whole.out);
  CHECK(about.at("family") == "flux");
  CHECK(about.at("complete") == true);
  CHECK(about.at("hash") == weights::model_hash(weights::open_model(data("flux/tiny-schnell"))));
  CHECK(about.at("components").at("transformer").at("dtypes") == json{"F16"});
  CHECK(about.at("defaults").at("sampling.steps") == "4");
  CHECK_THAT(xdit_gen({"inspect", data("flux/tiny-schnell")}).out, ContainsSubstring("family: flux"));

  // A deeper transformer than the files hold.
  const fs::path own = folder.path / "deep";
  fs::copy(data("flux/tiny-schnell"), own, fs::copy_options::recursive);
  std::ifstream file(own / "transformer" / "config.json");
  json config = json::parse(file);
  config["num_layers"] = config["num_layers"].get<int>() + 1;
  std::ofstream(own / "transformer" / "config.json") << config;
  const Result lacking = xdit_gen({"inspect", own.string(), "--json"});
  CHECK(lacking.code == 4);
  about = json::parse(lacking.out);
  CHECK(about.at("complete") == false);
  CHECK(about.at("components").at("transformer").at("missing").size() > 10);
  CHECK(about.at("components").at("transformer").count("extra") == 0);
}

TEST_CASE("inspect: single files") {
  const std::string file = data("flux/tiny-dev-bfl.safetensors");
  const json alone = json::parse(xdit_gen({"inspect", file, "--json", "--sha256"}).out);
  CHECK(alone.at("kind") == "tensors");
  CHECK(alone.at("sha256") == weights::file_sha256(file));
  const json based = json::parse(xdit_gen({"inspect", file, "--json", "--base", data("flux/tiny-dev")}).out);
  CHECK(based.at("kind") == "model");
  CHECK(based.at("complete") == true);
  const json whole = json::parse(xdit_gen({"inspect", XDIT_SINGLE_FILES "/tiny-sdxl.safetensors", "--json",
                                           "--base", data("sd/tiny-sdxl")})
                                     .out);
  CHECK(whole.at("family") == "sdxl");
  CHECK(whole.at("complete") == true);
  CHECK(whole.at("components").at("text_encoder_2").at("dtypes") == json{"F16"});
  const Folder folder;
  CHECK(xdit_gen({"inspect", folder.write("x.safetensors", "garbage!garbage!")}).code == 4);
  CHECK(xdit_gen({"inspect", "nothing/here"}).code == 4);
}

TEST_CASE("inspect: a picture of ours, another's, a broken one") {
  const Folder folder;
  const std::string png = png_of(folder, data("flux/tiny-dev"));
  const json about = json::parse(xdit_gen({"inspect", png, "--json"}).out);
  CHECK(about.at("kind") == "picture");
  CHECK(about.at("width") == 64);
  CHECK(about.at("settings").at("seed") == 18446744073709551615U);
  CHECK_THAT(about.at("text").at("parameters").get<std::string>(), ContainsSubstring("Steps: 7"));
  CHECK_THAT(xdit_gen({"inspect", png}).out, ContainsSubstring("  steps: 7\n"));

  const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(16) * 16 * 3, 9);
  const std::vector<output::TextChunk> evil{{"Comment", "a\x1b[31mb\xC2\x9B"}};
  const Result other =
      xdit_gen({"inspect", folder.write("other.png", output::encode_png(pixels, 16, 16, evil))});
  CHECK(other.code == 0);
  CHECK_THAT(other.out, ContainsSubstring("Comment: a?[31mb?"));
  CHECK(xdit_gen({"inspect", folder.write("broken.png", "\x89PNG\r\n\x1a\n....")}).code == 2);
}

TEST_CASE("--from-image takes a picture's settings; flags win, another model is told") {
  const Folder folder;
  const std::string png = png_of(folder, data("flux/tiny-dev"));
  const Result replayed =
      dry_run({"-m", data("flux/tiny-dev"), "--from-image", png}, {.environment = {"XDIT_GEN_STEPS=9"}});
  CHECK(value(replayed, "prompt") == "a fox, \"red\"\n\xF0\x9F\xA6\x8A");
  CHECK(value(replayed, "sampling.steps") == "7");
  CHECK(value(replayed, "sampling.seed") == "18446744073709551615");
  CHECK(value(replayed, "sampling.shift") == "3");
  CHECK(value(replayed, "model.dtype") == "fp32");
  CHECK(value(replayed, "image.height") == "48");
  CHECK(replayed.err.empty());
  CHECK(value(dry_run({"-m", data("flux/tiny-dev"), "--from-image", png, "--steps", "8"}),
              "sampling.steps") == "8");

  const Result other = dry_run({"-m", data("flux/tiny-schnell"), "--from-image", png});
  CHECK(other.code == 0);
  CHECK_THAT(other.err, ContainsSubstring("warning: the picture was made with tiny-dev"));
  const Result guided =  // by a scale that FLUX's embedded one says nothing of
      dry_run({"-m", data("sd/tiny-sdxl"), "--from-image", png, "--scheduler", "euler", "--steps", "2"});
  INFO(guided.err);
  CHECK(guided.code == 0);
  CHECK(value(guided, "sampling.cfg_scale") == "1");
  const Result bare = dry_run({"--from-image", png});
  CHECK(bare.code == 2);
  CHECK_THAT(bare.err, ContainsSubstring("no model: the picture was made with tiny-dev"));
  CHECK(dry_run({"-m", data("flux/tiny-dev"), "--from-image", folder.write("x.png", "not a picture")}).code ==
        2);
}

TEST_CASE("--load-format dummy knows built-in models without files") {
  const Result result =
      dry_run({"-m", "FLUX.1-schnell", "--load-format", "dummy", "-p", "a", "--dtype", "bf16", "--json"});
  if (result.code == 6) return;  // this machine's memory is too small for the plan
  REQUIRE(result.code == 0);
  CHECK(json::parse(result.out).at("settings").at("sampling.steps") == 4);
}

TEST_CASE("doctor without a GPU: exit 5 and what to do, 0 where none is wanted") {
  const Result result = xdit_gen({"doctor"});
  CHECK(result.code == 5);
  CHECK_THAT(result.out, ContainsSubstring("problem: no ") && ContainsSubstring("--device cpu"));
  const Result json_text = xdit_gen({"doctor", "--json", "--device", "cpu", data("flux")});
  CHECK(json_text.code == 0);
  const json health = json::parse(json_text.out);
  CHECK(health.at("machine").at("cores") > 0);
  CHECK(health.at("dev_shm_bytes").is_number());
  CHECK(xdit_gen({"doctor", "/nowhere"}).code == 2);
}

TEST_CASE("the demo models open whole and ask for what their cards recommend") {
  struct Demo {
    const char* name;
    const char* family;
    const char* steps;
    const char* cfg_scale;
    const char* scheduler;
  };
  for (const Demo& demo :
       {Demo{"demo", "flux", "16", "1", "flow-match-euler"}, Demo{"demo-sdxl", "sdxl", "20", "2", "euler"}}) {
    CAPTURE(demo.name);
    const std::string folder = std::string(XDIT_SOURCE) + "/configs/" + demo.name;
    const json about = json::parse(xdit_gen({"inspect", folder, "--json"}).out);
    CHECK(about.at("family") == demo.family);
    CHECK(about.at("complete") == true);
    const Result asked = dry_run({"-m", folder, "-p", "fox", "-s", "0"});
    CHECK(asked.err.empty());
    CHECK(value(asked, "image.width") == "128");
    CHECK(value(asked, "image.height") == "128");
    CHECK(value(asked, "sampling.steps") == demo.steps);
    CHECK(value(asked, "sampling.cfg_scale") == demo.cfg_scale);
    CHECK(value(asked, "sampling.scheduler") == demo.scheduler);
  }
}

}  // namespace xdit::cli
