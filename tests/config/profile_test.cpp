#include <fmt/format.h>

#include <cmath>
#include <random>

#include "config/values.h"
#include "tests/catch.h"
#include "tests/config/support.h"

namespace xdit::config {
namespace {

// The error of a profile, or "accepted".
Error fault(const std::string& yaml) {
  const TemporaryFolder folder;
  try {
    std::vector<Layer> layers{minimum(), read_text(folder, yaml)};
    static_cast<void>(resolve(layers, no_draw));
  } catch (const Error& error) {
    const std::string prefix = folder.path.string() + "/";
    const std::string& where = error.where();
    return {error.code(), error.message(), where.starts_with(prefix) ? where.substr(prefix.size()) : where,
            error.fix()};
  }
  return {ExitCode::kOk, "accepted"};
}

RunSpec round_trip(const RunSpec& spec) {
  const TemporaryFolder folder;
  const std::string yaml = to_yaml(spec);
  INFO(yaml);
  return resolve(std::vector<Layer>{read_text(folder, yaml)}, no_draw).spec;
}

std::string utf8(char32_t c) {
  std::string bytes;
  const auto put = [&](char32_t byte) { bytes += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0U | c >> 6U), put(0x80U | (c & 63U));
  } else if (c < 0x10000) {
    put(0xE0U | c >> 12U), put(0x80U | (c >> 6U & 63U)), put(0x80U | (c & 63U));
  } else {
    put(0xF0U | c >> 18U), put(0x80U | (c >> 12U & 63U)), put(0x80U | (c >> 6U & 63U)),
        put(0x80U | (c & 63U));
  }
  return bytes;
}

}  // namespace

TEST_CASE("the documented profile reads") {
  const TemporaryFolder folder;
  const Layer layer = read_text(folder, R"(model:
  path: models/FLUX.1-dev         # diffusers folder or single .safetensors
  dtype: bf16
prompt: a lighthouse at dawn
image:    {width: 1024, height: 768, count: 1}
sampling: {scheduler: flow-match-euler, steps: 28, guidance: 3.5, seed: 42}
parallel: {gpus: all, data: 1, cfg: 1, pipefusion: 1, ulysses: auto, ring: 1, gather: 1, tensor: 1, shard_weights: auto, vae: auto, allow: exact}
output:   {path: "out/{seed}.png", metadata: true}
runtime:  {timeout: 60s, deterministic: true}
)");
  const RunSpec spec = resolve(std::vector<Layer>{layer}, no_draw).spec;
  CHECK(spec.model.path == "models/FLUX.1-dev");
  CHECK(spec.prompts == std::vector<std::string>{"a lighthouse at dawn"});
  CHECK(spec.image.height == 768);
  CHECK(spec.sampling.seeds == std::vector<std::uint64_t>{42});
  CHECK(spec.parallel.gpus == "all");
  CHECK(spec.parallel.ulysses == std::nullopt);
  CHECK(spec.parallel.ring == 1);
  CHECK(spec.runtime.timeout_s == 60);
}

TEST_CASE("to_yaml reads back as the same RunSpec") {
  RunSpec spec;
  spec.model = {.path = "m \"x\"\n: #",
                .base = "b",
                .tokenizers = "~",
                .refiner = "r",
                .dtype = DType::kF32,
                .load_format = LoadFormat::kDummy,
                .quantize = Quantize::kFp8};
  spec.prompts = {"no", "010", "", " - [x]: {y} ", "\\ \"'`@%!&*|>?"};
  spec.negative_prompt = "null";
  spec.sampling = {.scheduler = "flow-match-euler",
                   .sigmas = "default",
                   .steps = 3,
                   .guidance = 0.1,
                   .cfg_scale = 1.0000000000000002,
                   .guidance_rescale = 0.7,
                   .shift = 1e-2,
                   .seeds = {1, 2, 3, 9, 0, 0},
                   .rng_dtype = DType::kBF16,
                   .max_sequence_length = 7,
                   .original_size = Extent{1024, 768},
                   .crop = Extent{0, 16}};
  spec.parallel.gpus = "1,";
  spec.parallel.ulysses = 2;
  spec.parallel.allow = Allow::kApproximate;
  spec.output = {.path = "%03d.png",
                 .metadata = false,
                 .overwrite = true,
                 .report = "r",
                 .trace = "t",
                 .preview_path = "p.png",
                 .preview = 3};
  spec.runtime = {
      .device = Device::kCpu, .transport = Transport::kHost, .timeout_s = 0.0015, .deterministic = false};
  CHECK(round_trip(spec) == spec);
  for (const auto& none_or_empty : {std::optional<std::string>(), std::optional<std::string>("")}) {
    spec.negative_prompt = none_or_empty;
    CHECK(round_trip(spec) == spec);
  }

  std::mt19937 random(3);  // NOLINT: the same values every time
  for (int i = 0; i < 200; ++i) {
    spec.sampling.guidance = std::ldexp(static_cast<double>(random()), -static_cast<int>(26 + random() % 40));
    spec.sampling.steps = static_cast<std::int64_t>(1 + random() % 1000);
    spec.sampling.seeds.assign(1 + random() % 4, random());
    spec.sampling.seeds.push_back((std::uint64_t{random()} << 32U) | random());
    spec.parallel.data = random() % 2 == 0 ? std::nullopt : std::optional<std::int64_t>(1 + random() % 1024);
    spec.output.metadata = random() % 2 == 0;
    REQUIRE(round_trip(spec) == spec);
  }
}

TEST_CASE("every character of Unicode survives to_yaml and back") {
  RunSpec spec;
  spec.model.path = std::string("m");  // not a literal: GCC 12 warns wrongly (PR 105651)
  spec.sampling.seeds = {0};
  for (char32_t first = 0; first < 0x110000; first += 0x4000) {
    std::string text;
    for (char32_t c = first; c < first + 0x4000; ++c)
      if (c < 0xD800 || c > 0xDFFF) text += utf8(c);
    spec.prompts = {text, "b"};
    CHECK((round_trip(spec).prompts == spec.prompts));
  }
}

TEST_CASE("faults of a profile name line, column, what was expected and what to write") {
  struct Case {
    const char* yaml;
    const char* where;
    const char* message;
    const char* fix;
  };
  const std::vector<Case> cases{
      {"sampling: {setps: 4}", "run.yaml:1:12",
       "unknown key 'setps' in sampling: expected one of scheduler, sigmas", "steps"},
      {"\nsamplig: {steps: 4}", "run.yaml:2:1", "unknown key 'samplig': expected one of model, prompt",
       "sampling"},
      {"steps: 4", "run.yaml:1:1", "unknown key 'steps'", "sampling: {steps: ...}"},
      {"image: {steps: 4}", "run.yaml:1:9", "unknown key 'steps' in image", "sampling: {steps: ...}"},
      {"sampling.steps: 4", "run.yaml:1:1", "unknown key 'sampling.steps'", "sampling: {steps: ...}"},
      {"sampling: {<<: 4}", "run.yaml:1:12", "unknown key '<<'", ""},
      {"sampling:\n  steps: 4\n  guidance: 1\n  steps: 5\n", "run.yaml:4:3",
       "duplicate key 'steps', first at", "remove one of them"},
      {"prompt: a\n\"prompt\": b\n", "run.yaml:2:1", "duplicate key 'prompt'", ""},
      {"sampling: {steps: 010}", "run.yaml:1:19", "sampling.steps: expected an integer 1..1000, found '010'",
       ""},
      {"sampling: {steps: 1e3}", "run.yaml:1:19", "found '1e3'", ""},
      {"sampling: {steps: 4.0}", "run.yaml:1:19", "found '4.0'", ""},
      {"sampling: {steps: \"4\"}", "run.yaml:1:19", "expected an integer 1..1000, found the text '4'", ""},
      {"sampling: {steps: }", "run.yaml:1:19", "found nothing", ""},
      {"sampling: {steps: [4, 8]}", "run.yaml:1:19", "found a list", ""},
      {"sampling: {steps: {a: 4}}", "run.yaml:1:19", "found a mapping", ""},
      {"sampling: 4", "run.yaml:1:11", "sampling: expected a mapping, found a number '4'",
       "sampling: {scheduler: ...}"},
      {"sampling:\nprompt: x", "run.yaml:1:1", "sampling: expected a mapping, found nothing", ""},
      {"[1, 2]", "run.yaml:1:1", "expected keys such as sampling: {steps: 20}, found a list", ""},
      {"a fox", "run.yaml:1:1", "found the text 'a fox'", ""},
      {"output: {metadata: no}", "run.yaml:1:20",
       "output.metadata: expected a boolean true|false, found 'no'", ""},
      {"output: {metadata: \"true\"}", "run.yaml:1:20", "found the text 'true'", ""},
      {"prompt: no", "run.yaml:1:9", "prompt: expected text or a list of texts, found a boolean 'no'",
       "prompt: \"no\""},
      {"prompt: 010", "run.yaml:1:9", "found a number '010'", "prompt: \"010\""},
      {"prompt: 1e3", "run.yaml:1:9", "found a number '1e3'", ""},
      {"prompt: ~", "run.yaml:1:9", "found nothing", ""},
      {"prompt: []", "run.yaml:1:9", "found an empty list", ""},
      {"prompt: [a, [b]]", "run.yaml:1:13", "found a list", ""},
      {"prompt: [a, 0x1F]", "run.yaml:1:13", "found a number '0x1F'", ""},
      {"model: {dtype: bf61}", "run.yaml:1:16", "model.dtype: expected one of bf16|fp16|fp32, found 'bf61'",
       "dtype: bf16"},
      {"image: {width: 1001}", "run.yaml:1:16", "expected a multiple of 8 in 16..16384, found '1001'",
       "width: 1000"},
      {"prompt: \"\xC3\xA9\xF0\x9F\xA6\x8A\"\nsampling: {seed: 1, \"\xC3\xA9\": 2}", "run.yaml:2:21",
       "unknown key '\xC3\xA9' in sampling", ""},
      {"sweep: {sampling.steps: [20, 28]}", "run.yaml:1:1", "sweep: is not part of generating pictures",
       "xdit-gen sweep"},
      {"prompt: &a x", "run.yaml:1:9", "a YAML anchor is not allowed", ""},
      {"prompt: *a", "run.yaml:1:9", "", ""},
      {"prompt: [&a x, *a]", "run.yaml:1:10", "a YAML anchor is not allowed", ""},
      {"prompt: !!str x", "run.yaml:1:9", "a YAML tag is not allowed", ""},
      {"prompt: ! x", "run.yaml:1:9", "a YAML tag is not allowed", ""},
      {"prompt: !python/object x", "run.yaml:1:9", "a YAML tag is not allowed", ""},
      {"sampling: !!map {steps: 4}", "run.yaml:1:11", "a YAML tag is not allowed", ""},
      {"? [a, b]\n: c", "run.yaml:1:3", "", ""},
      {"? : c", "run.yaml:1:", "", ""},
      {"prompt: a\n---\nprompt: b", "run.yaml:2:1", "a second YAML document", ""},
      {"prompt: [a", "run.yaml:1:", "not valid YAML", ""},
      {"prompt: 'a", "run.yaml:1:9", "a quote has no end", ""},
      {"steps: 1\nprompt: \"a\nseed: 1\n \n", "run.yaml:2:9", "a quote has no end", ""},
      {"prompt: 'it''s\n", "run.yaml:1:9", "a quote has no end", ""},
      {"prompt: a\n\"steps: 1\n", "run.yaml:2:1", "not valid YAML", ""},
      {"prompt: \"a\\q\"", "run.yaml:1:", "not valid YAML", ""},
      {"a: b: c", "run.yaml:1:", "not valid YAML", ""},
      {"prompt: a\x04\nsteps: 1", "run.yaml:1:10", "a control character", ""},
      {"prompt: a\xff", "run.yaml", "not UTF-8", ""},
  };
  for (const Case& wrong : cases) {
    CAPTURE(wrong.yaml);
    const Error error = fault(wrong.yaml);
    CHECK(error.code() == ExitCode::kProfile);
    CHECK_THAT(error.where(), Catch::Matchers::StartsWith(wrong.where));
    CHECK_THAT(error.message(), ContainsSubstring(wrong.message));
    CHECK_THAT(error.fix(), ContainsSubstring(wrong.fix));
  }
}

TEST_CASE("what may be written") {
  const TemporaryFolder folder;
  const auto spec = [&](const std::string& yaml) {
    return resolve(std::vector<Layer>{minimum(), read_text(folder, yaml)}, no_draw).spec;
  };
  CHECK(spec("").sampling.steps == 28);
  CHECK(spec("# nothing\n").sampling.steps == 28);
  CHECK(spec("---\nsampling: {steps: 4}\n...\n").sampling.steps == 4);
  CHECK(spec("\xEF\xBB\xBFsampling:\r\n  steps: 4\r\n").sampling.steps == 4);
  CHECK(spec("sampling: {}").sampling.steps == 28);
  CHECK(spec("sampling: {seed: [1, 5-6]}").sampling.seeds == std::vector<std::uint64_t>{1, 5, 6});
  CHECK(spec("sampling: {shift: \"auto\"}").sampling.shift == std::nullopt);
  CHECK(spec("prompt: >\n  a fox\n  at dawn\n").prompts == std::vector<std::string>{"a fox at dawn\n"});
  CHECK(spec("prompt:\n- a\n- b\n").prompts == std::vector<std::string>{"a", "b"});
  CHECK(spec("prompt: \"no\"").prompts == std::vector<std::string>{"no"});
  CHECK(spec("prompt: 12:30 on 2024-01-01").prompts.size() == 1);
}

TEST_CASE("relative model paths that exist beside the profile are taken from there") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder.path / "beside");
  const Layer layer = read_text(folder, "model: {path: beside, base: elsewhere, tokenizers: /}");
  CHECK(winner(std::vector<Layer>{layer}, "model.path")->values.front() == (folder.path / "beside").string());
  CHECK(winner(std::vector<Layer>{layer}, "model.base")->values.front() == "elsewhere");
  CHECK(winner(std::vector<Layer>{layer}, "model.tokenizers")->values.front() == "/");
}

TEST_CASE("a model's own settings: image and sampling only, exit code 4") {
  const TemporaryFolder folder;
  const Layer layer =
      read_model_settings(folder.write("xdit-gen.yaml", "sampling: {steps: 16}\nimage: {width: 128}\n"));
  REQUIRE(layer.size() == 2);
  CHECK(layer[0].code == ExitCode::kModel);
  for (const char* yaml :
       {"output: {path: /etc/passwd}", "prompt: x", "model: {path: /}", "sampling: {step: 1}"}) {
    CAPTURE(yaml);
    try {
      static_cast<void>(read_model_settings(folder.write("xdit-gen.yaml", yaml)));
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kModel);
      CHECK_THAT(error.where(), ContainsSubstring("xdit-gen.yaml:1:"));
    }
  }
}

TEST_CASE("files that cannot be read") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(read_profile(folder.path / "absent.yaml"), ContainsSubstring("absent.yaml"));
  CHECK_THROWS_AS(read_profile(folder.path), Error);
  CHECK_THROWS_WITH(read_text(folder, std::string((1U << 20U) + 1, '#')), ContainsSubstring("1048576"));
}

}  // namespace xdit::config
