// Laws of a run: what must not depend on what.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "output/metadata.h"
#include "pipeline/handoff.h"
#include "pipeline/preview.h"
#include "tests/catch.h"
#include "tests/pipeline/run.h"
#include "tests/scratch.h"
#include "tests/tensors.h"

namespace xdit::test {
namespace {

const models::Model& tiny_dev() {
  static const models::Model model =
      models::open((std::filesystem::path(XDIT_TEST_DATA) / "flux/tiny-dev").string(), {}, {}, false);
  return model;
}

std::string bytes(const std::filesystem::path& file) {
  return read_file(file, ExitCode::kOutput);
}

TEST_CASE("the same run gives the same bytes") {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const tests::Scratch a, b;
    Recorder recorder;
    config::RunSpec spec = small_spec();
    spec.model.dtype = dtype;
    static_cast<void>(run(spec, tiny_dev(), a.path(), recorder));
    static_cast<void>(run(spec, tiny_dev(), b.path(), recorder));
    CHECK(bytes(a.path() / "0.png") == bytes(b.path() / "0.png"));
  }
}

TEST_CASE("what encoders do not read of a long prompt is told in a line") {
  const tests::Scratch scratch;
  Recorder recorder;
  config::RunSpec spec = small_spec();
  std::string prompt = "a fox";
  for (int i = 0; i < 5000; ++i) prompt += " \u00e9t\u00e9";
  spec.prompts = {prompt};
  static_cast<void>(run(spec, tiny_dev(), scratch.path(), recorder));
  REQUIRE(!recorder.warnings.empty());
  for (const std::string& line : recorder.warnings) {
    CHECK(line.size() < 400);
    CHECK_THAT(line, ContainsSubstring(" bytes)"));
    CHECK_NOTHROW(nlohmann::json(line).dump());  // no character is cut apart
  }
}

TEST_CASE("a forward on weights that are not there yet leaves no trace in the picture") {
  for (const char* name : {"flux/tiny-dev", "sd/tiny-sdxl"}) {
    CAPTURE(name);
    const models::Model model =
        models::open((std::filesystem::path(XDIT_TEST_DATA) / name).string(), {}, {}, false);
    const auto made = [&](const std::string& warm_up) {
      const tests::Scratch scratch;
      Recorder recorder;
      config::RunSpec spec = small_spec();
      spec.sampling.cfg_scale = 3;
      if (!model.takes_guidance) spec.sampling.scheduler = "euler";
      spec.runtime.warm_up = warm_up;
      const output::Report report = run(spec, model, scratch.path(), recorder);
      const bool warmed = output::seconds_by_phase(report).contains("warm_up");
      CHECK(warmed == (warm_up == "true"));
      return bytes(scratch.path() / "0.png");
    };
    CHECK(made("true") == made("false"));
  }
}

TEST_CASE("a picture does not depend on those made beside it") {
  const tests::Scratch together, alone;
  Recorder recorder;
  config::RunSpec spec = small_spec();
  spec.prompts = {"a lighthouse on a cliff at dawn", "a red fox"};
  spec.sampling.seeds = {1, 5};
  spec.image.count = 2;
  static_cast<void>(run(spec, tiny_dev(), together.path(), recorder));
  CHECK(recorder.pictures == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7});
  for (const config::Picture& picture : config::pictures(spec)) {
    config::RunSpec one = small_spec();
    one.prompts = {picture.prompt};
    one.sampling.seeds = {picture.seed};
    static_cast<void>(run(one, tiny_dev(), alone.path(), recorder));
    CAPTURE(picture.index);
    CHECK(bytes(together.path() / (std::to_string(picture.index) + ".png")) == bytes(alone.path() / "0.png"));
    std::filesystem::remove(alone.path() / "0.png");
  }
}

TEST_CASE("many prompts, prepared one at a time, give the pictures of few") {
  const tests::Scratch many, one;
  Recorder recorder;
  config::RunSpec spec = small_spec();
  spec.prompts.clear();
  for (int i = 0; i < 10; ++i) spec.prompts.push_back("number " + std::to_string(i));
  static_cast<void>(run(spec, tiny_dev(), many.path(), recorder));
  spec.prompts = {"number 7"};
  static_cast<void>(run(spec, tiny_dev(), one.path(), recorder));
  CHECK(bytes(many.path() / "7.png") == bytes(one.path() / "0.png"));
}

TEST_CASE("an empty negative prompt is encoded, and none is zeros where the model says so") {
  const models::Model model =
      models::open((std::filesystem::path(XDIT_TEST_DATA) / "sd/tiny-sdxl").string(), {}, {}, false);
  const auto traced = [&](const std::optional<std::string>& negative) {
    const tests::Scratch scratch;
    Recorder recorder;
    config::RunSpec spec = small_spec();
    spec.prompts = {""};
    spec.negative_prompt = negative;
    spec.sampling.scheduler = "ddim";
    spec.sampling.cfg_scale = 4;
    spec.output.trace = (scratch.path() / "trace").string();
    static_cast<void>(run(spec, model, scratch.path(), recorder));
    return read_tensors(scratch.path() / "trace");
  };
  const auto empty = traced(""), none = traced({});
  for (const char* name : {"prompt_embeds", "pooled_prompt_embeds"}) {
    const std::string negative = std::string("negative_") + name;
    CHECK(at::equal(empty.at(negative), empty.at(name)));
    CHECK(at::equal(none.at(negative), at::zeros_like(none.at(name))));
    CHECK(none.at(name).abs().sum().item<float>() > 0);
  }
}

TEST_CASE("a preview shows the picture that latents lead to, whatever their sampler's noise levels") {
  const auto root = std::filesystem::path(XDIT_TEST_DATA);
  const models::Model sd = models::open((root / "sd/tiny-sd15").string(), {}, {}, false);
  const at::Tensor picture = at::randn({4, 3, 5}), noise = at::randn({4, 3, 5});
  for (const auto& [model, name] :
       {std::pair<const models::Model*, const char*>{&tiny_dev(), "flow-match-euler"},
        {&sd, "euler"},
        {&sd, "ddim"},
        {&sd, "dpm++-2m"}}) {
    CAPTURE(name);
    const auto sampler = schedulers::make_sampler({.name = name, .steps = 5, .image_tokens = 15},
                                                  model->files.scheduler_config);
    const pipeline::Preview preview(2, *model, *sampler);
    CHECK((!preview.due(1) && preview.due(2) && !preview.due(std::ssize(sampler->timesteps()))));
    for (std::int64_t i = 0; i + 1 < std::ssize(sampler->timesteps()); ++i) {
      const at::Tensor before = sampler->begin(noise, picture, i);
      const at::Tensor after = sampler->begin(noise, picture, i + 1);
      CHECK(at::allclose(preview.towards(i, before, after), picture, 1e-3, 1e-3));
      CHECK(at::allclose(preview.towards(i, {}, after) * 0, at::zeros_like(picture)));  // finite
    }
  }
}

TEST_CASE("a stop ends the run between steps and leaves no file") {
  const tests::Scratch scratch;
  Recorder recorder;
  recorder.stop_after = 2;
  config::RunSpec spec = small_spec();
  spec.sampling.steps = 50;
  try {
    static_cast<void>(run(spec, tiny_dev(), scratch.path(), recorder));
    FAIL("the run went on");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kInterrupted);
  }
  CHECK(recorder.steps < 6);
  CHECK(std::filesystem::is_empty(scratch.path()));
}

TEST_CASE("a cut prompt is said to be cut") {
  const tests::Scratch scratch;
  Recorder recorder;
  config::RunSpec spec = small_spec();
  spec.prompts = {
      "one two three four five six seven eight nine ten eleven twelve thirteen fourteen the last words"};
  spec.sampling.max_sequence_length = 16;
  static_cast<void>(run(spec, tiny_dev(), scratch.path(), recorder));
  REQUIRE(!recorder.warnings.empty());
  CHECK_THAT(recorder.warnings.front(), ContainsSubstring("last words"));
}

TEST_CASE("drawn weights give a picture, without files") {
  const tests::Scratch scratch;
  Recorder recorder;
  models::Model model =
      models::open((std::filesystem::path(XDIT_TEST_DATA) / "flux/tiny-dev").string(), {}, {}, true);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    config::RunSpec spec = small_spec();
    spec.model.dtype = dtype;
    spec.output.overwrite = true;
    const output::Report report = run(spec, model, scratch.path(), recorder);
    CHECK(report.ranks.at(0).bytes_read == 0);
    CHECK(std::filesystem::file_size(scratch.path() / "0.png") > 500);
  }
}

TEST_CASE("a VAE with force_upcast decodes what float16 does not hold") {
  models::Model model =
      models::open((std::filesystem::path(XDIT_TEST_DATA) / "sd/tiny-sdxl").string(), {}, {}, false);
  model.files.components.at("vae").config["scaling_factor"] = 1e-6;
  config::RunSpec spec = small_spec();
  spec.model.dtype = DType::kF16;
  spec.sampling.scheduler = "euler";
  Recorder recorder;
  const tests::Scratch upcast, plain;
  static_cast<void>(run(spec, model, upcast.path(), recorder));
  CHECK(bytes(upcast.path() / "0.png").size() > 500);
  model.networks.back().not_in_float16 = false;
  CHECK_THROWS_WITH(run(spec, model, plain.path(), recorder), ContainsSubstring("NaN or infinite"));
}

TEST_CASE("a model and its refiner share the evaluations, in whole steps") {
  using pipeline::Stage;
  const nlohmann::json config{{"num_train_timesteps", 1000}};
  for (const char* name : {"euler", "heun", "dpm-2", "pndm", "dpm++-2m"})
    for (const double start : {0.0, 0.3, 0.55, 0.8, 1.0}) {
      CAPTURE(name, start);
      const auto sampler = schedulers::make_sampler({.name = name, .steps = 10}, config);
      const auto all = static_cast<std::int64_t>(sampler->timesteps().size());
      const parallel::Range first = pipeline::evaluations_of(Stage::kFirst, *sampler, start, config);
      const parallel::Range second = pipeline::evaluations_of(Stage::kSecond, *sampler, start, config);
      CHECK(first.first == 0);
      CHECK(second.first == first.count);
      CHECK(first.count + second.count == all);
      CHECK((second.count == 0 || second.first % sampler->order() == 0));
      if (start == 0) CHECK(first.count == 0);
      if (start == 1) CHECK(second.count == 0);
    }
  const auto euler = schedulers::make_sampler({.name = "euler", .steps = 10}, config);
  CHECK(pipeline::evaluations_of(Stage::kFirst, *euler, 0.8, config).count == 8);
  CHECK(pipeline::evaluations_of(Stage::kWhole, *euler, 0.8, config).count == 10);
}

TEST_CASE("the report names every phase, each step, and what was read") {
  const tests::Scratch scratch;
  Recorder recorder;
  const output::Report report = run(small_spec(), tiny_dev(), scratch.path(), recorder);
  const auto seconds = output::seconds_by_phase(report);
  for (const char* phase : {"load", "load_encoders", "text_encode", "step", "decode", "write"}) {
    CAPTURE(phase);
    CHECK(seconds.contains(phase));
  }
  CHECK(std::count_if(report.phases.begin(), report.phases.end(),
                      [](const auto& p) { return p.name == "step"; }) == 2);
  std::uint64_t expected = 0;
  for (const models::Network& network : tiny_dev().networks)
    for (const weights::Placed& placed : network.placed)
      for (const weights::Piece& piece : placed.pieces) expected += piece.bytes;
  CHECK(report.ranks.at(0).bytes_read == expected);
}

TEST_CASE("a picture that is no picture is an error") {
  const tests::Scratch scratch;
  Recorder recorder;
  config::RunSpec spec = small_spec();
  spec.sampling.guidance = 1e30;  // its embedding is infinite times a weight
  spec.sampling.cfg_scale = 1e30;
  CHECK_THROWS_WITH(run(spec, tiny_dev(), scratch.path(), recorder), ContainsSubstring("the picture"));
  CHECK(std::filesystem::is_empty(scratch.path()));
}

}  // namespace
}  // namespace xdit::test
