#include "output/metadata.h"

#include <nlohmann/json.hpp>
#include <regex>

#include "core/file.h"
#include "tests/catch.h"
#include "tests/scratch.h"

using xdit::DType;
using xdit::Error;
using xdit::ExitCode;
using xdit::config::Allow;
using xdit::config::LoadFormat;
using xdit::config::RunSpec;
using xdit::output::PictureRecord;

namespace {

RunSpec spec_of(const std::string& prompt, const std::string& negative_prompt) {
  RunSpec spec;
  spec.model.path = "/somewhere/models/FLUX.1-dev";
  spec.prompts = {prompt};
  spec.negative_prompt = negative_prompt;
  spec.sampling.seeds = {42};
  return spec;
}

PictureRecord record_of(const RunSpec& spec) {
  return xdit::output::record_of(
      spec, {.index = 0, .prompt = spec.prompts.at(0), .seed = spec.sampling.seeds.at(0)}, "FLUX.1-dev",
      "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
}

const std::vector<std::string> kPrompts{
    "a lighthouse at dawn",
    "",
    " ",
    "two\nlines\n",
    "commas, colons: and \"quotes\" and \\ backslashes \\n",
    "caf\u00e9 na\u00efve \u00ff",
    "\u732b\u306e\u7d75 \U0001f600\u200d\U0001f4bb \u202e",
    "bad \xff\xfe bytes \xc3( \xe2\x82 \xf0\x9f\x98 \xed\xa0\x80",
    "cat\nNegative prompt: dog\nSteps: 99, Sampler: DPM++ 2M, CFG scale: 30, Seed: 666, Size: 8x8",
    "Negative prompt: only",
    "Steps: 1, Seed: 2, Size: 3x3, Model: evil",
    "<script>alert(1)</script> $(rm -rf /) `x` {seed} %03d {\"prompt\": 1}",
    std::string("nul\0tab\t\x01\x7f", 9),
    "\u0080\u009f\ufeff\ufffe",
    "-",
    "auto",
    "- list\n- of: yaml",
    std::string(200'000, 'x'),
};

// The settings that AUTOMATIC1111's webui reads: the last line, split by its published regular expression.
std::map<std::string, std::string> a1111_fields(const std::string& parameters) {
  const std::string last = parameters.substr(parameters.rfind('\n') + 1);
  static const std::regex field(R"re(\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$))re");
  std::map<std::string, std::string> fields;
  for (std::sregex_iterator match(last.begin(), last.end(), field), end; match != end; ++match)
    fields[(*match)[1]] = (*match)[2];
  return fields;
}

std::string fault(const std::string& json) {
  try {
    static_cast<void>(xdit::output::from_json(json, "x.png", ExitCode::kUsage));
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kUsage);
    CHECK(error.where() == "x.png");
    return error.what();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("a picture replays to the settings and the bytes that made it", "[metadata]") {
  const xdit::tests::Scratch scratch;
  const std::filesystem::path png = scratch.path() / "x.png";
  const std::vector<std::uint8_t> pixels(std::size_t{3} * 16 * 16, 7);
  for (const std::string& prompt : kPrompts)
    for (const std::string& negative : {std::string(), prompt, std::string("ugly")}) {
      CAPTURE(prompt.substr(0, 100), negative.substr(0, 100));
      RunSpec spec = spec_of(prompt, negative);
      spec.image = {.width = 1024, .height = 768, .count = 1};
      spec.sampling.steps = 3;
      spec.sampling.guidance = 0.1 + 0.2;
      spec.sampling.cfg_scale = 1e-5;
      spec.sampling.seeds = {UINT64_MAX};
      spec.sampling.max_sequence_length = 77;
      spec.model.dtype = DType::kF16;
      if (negative.empty()) {
        spec.model.quantize = xdit::config::Quantize::kFp8;
        spec.sampling.shift = 3.1;
        spec.sampling.rng_dtype = DType::kF32;
        spec.sampling.prediction = "v-prediction";
      }
      const PictureRecord record = record_of(spec);
      const std::string bytes = xdit::output::encode_png(pixels, 16, 16, xdit::output::text_chunks(record));
      xdit::write_file_atomically(png, bytes, true);
      CHECK(xdit::output::read_record(png) == record);

      RunSpec other;  // starts from other values everywhere
      other.model = {.path = "m",
                     .base = {},
                     .tokenizers = {},
                     .refiner = {},
                     .dtype = DType::kF32,
                     .load_format = LoadFormat::kDummy};
      other.image = {.width = 16, .height = 16, .count = 5};
      other.sampling.shift = 1;
      other.sampling.rng_dtype = DType::kBF16;
      other.parallel.allow = Allow::kApproximate;
      for (const xdit::config::Setting& setting :
           xdit::output::replay_layer(xdit::output::read_record(png), "x.png")) {
        CAPTURE(setting.key);
        CHECK(setting.where == "x.png");
        const xdit::config::Key* key = xdit::config::find_key(setting.key);
        REQUIRE(key != nullptr);
        key->set(other, setting, *key);
      }
      CHECK(other.image == spec.image);
      CHECK(other.model.dtype == spec.model.dtype);
      CHECK(other.model.load_format == LoadFormat::kAuto);
      CHECK(other.model.quantize == spec.model.quantize);
      CHECK(other.parallel.allow == Allow::kExact);
      const PictureRecord again = record_of(other);
      CHECK(again == record);
      CHECK(xdit::output::encode_png(pixels, 16, 16, xdit::output::text_chunks(again)) == bytes);
    }
}

TEST_CASE("a refiner is recorded by its name, with what it was told") {
  RunSpec spec = spec_of("a cat", "");
  spec.sampling.refiner_start = 0.7;
  CHECK(!record_of(spec).refiner_start);
  for (const char* path :
       {"/somewhere/sd_xl_refiner.safetensors", "stabilityai/sd_xl_refiner/", "sd_xl_refiner"}) {
    spec.model.refiner = path;
    const PictureRecord record = record_of(spec);
    CHECK(record.refiner == "sd_xl_refiner");
    CHECK(record.refiner_start == 0.7);
    CHECK(record.negative_aesthetic_score == 2.5);
    CHECK(xdit::output::from_json(xdit::output::to_json(record), "x", ExitCode::kUsage) == record);
  }
}

TEST_CASE("the settings of a replay pass resolve", "[metadata]") {
  const PictureRecord record = record_of(spec_of("a, b: c\n\"d\"", "e"));
  const std::vector<xdit::config::Layer> layers{
      {{.key = "model.path", .values = {"m"}, .where = "-m", .code = ExitCode::kUsage}},
      xdit::output::replay_layer(record, "x.png")};
  const xdit::config::Resolved resolved = xdit::config::resolve(layers, []() -> std::uint64_t { throw 1; });
  CHECK(resolved.spec.prompts == std::vector<std::string>{"a, b: c\n\"d\""});
  CHECK(resolved.spec.sampling.seeds == std::vector<std::uint64_t>{42});
  CHECK(record_of(resolved.spec) == record);
}

TEST_CASE("the record holds nothing of the machine, the grid or the path", "[metadata]") {
  RunSpec spec = spec_of("a cat", "");
  const std::string before = xdit::output::to_json(record_of(spec)) + a1111_parameters(record_of(spec));
  CHECK(before.find("somewhere") == std::string::npos);
  spec.model.path = "elsewhere/FLUX.1-dev";
  spec.parallel.gpus = "0,1";
  spec.parallel.ulysses = 2;
  spec.parallel.allow = Allow::kApproximate;  // allowed, not used: the Plan says what was
  spec.runtime = {.device = xdit::config::Device::kCpu, .timeout_s = 5, .deterministic = true};
  spec.output.path = "x.png";
  CHECK(xdit::output::to_json(record_of(spec)) + a1111_parameters(record_of(spec)) == before);
}

TEST_CASE("JSON names every setting once, in ASCII", "[metadata]") {
  const std::string text = xdit::output::to_json(record_of(spec_of("caf\u00e9 \U0001f600\n", "")));
  CHECK(
      text ==
      R"({"version":")" XDIT_VERSION
      R"(","model":"FLUX.1-dev","model_hash":"0123456789","prompt":"caf\u00e9 \ud83d\ude00\n","negative_prompt":"",)"
      R"("width":1024,"height":1024,"steps":28,"scheduler":"flow-match-euler","sigmas":"default","guidance":3.5,)"
      R"("cfg_scale":1.0,"max_sequence_length":512,"seed":42,"rng_dtype":"bf16","dtype":"bf16"})");
}

TEST_CASE("no negative prompt is not an empty one", "[metadata]") {
  RunSpec spec = spec_of("a cat", "");
  for (const bool given : {true, false}) {
    if (!given) spec.negative_prompt.reset();
    const PictureRecord record = record_of(spec);
    const std::string text = xdit::output::to_json(record);
    CHECK((text.find("negative_prompt") != std::string::npos) == given);
    CHECK(xdit::output::from_json(text, "x.png", ExitCode::kUsage) == record);
    for (const auto& setting : xdit::output::replay_layer(record, "x.png"))
      CHECK(setting.values.empty() == (!given && setting.key == "negative_prompt"));
  }
}

TEST_CASE("an approximate mode records itself and its grid, and replays them", "[metadata]") {
  PictureRecord record = record_of(spec_of("a cat", ""));
  record.mode = Allow::kApproximate;
  record.grid = {{"pipefusion", "2"}, {"gpus", "2"}};
  CHECK(xdit::output::from_json(xdit::output::to_json(record), "x.png", ExitCode::kUsage) == record);
  std::map<std::string, std::string> settings;
  for (const auto& setting : xdit::output::replay_layer(record, "x.png"))
    settings[setting.key] = setting.values.at(0);
  CHECK(settings["parallel.allow"] == "approximate");
  CHECK(settings["parallel.pipefusion"] == "2");
  CHECK(settings["parallel.gpus"] == "2");
  CHECK(settings.count("model.path") == 0);
  record.load_format = LoadFormat::kDummy;
  for (const auto& setting : xdit::output::replay_layer(record, "x.png"))
    settings[setting.key] = setting.values.at(0);
  CHECK(settings["model.path"] == "FLUX.1-dev");
  CHECK(settings["model.load_format"] == "dummy");
}

TEST_CASE("parameters follow A1111's grammar", "[metadata]") {
  CHECK(a1111_parameters(record_of(spec_of("a cat", "a dog"))) ==
        "a cat\nNegative prompt: a dog\nSteps: 28, Sampler: Euler, CFG scale: 1, Distilled CFG Scale: 3.5, "
        "Seed: 42, "
        "Size: 1024x1024, Model hash: 0123456789, Model: FLUX.1-dev, Version: xdit-gen " XDIT_VERSION);
  for (const auto& [sigmas, spelled] : {std::pair{"sgm-uniform", "SGM Uniform"},
                                        {"karras", "Karras"},
                                        {"exponential", "Exponential"},
                                        {"beta", "Beta"},
                                        {"simple", "Simple"}}) {
    PictureRecord record = record_of(spec_of("a cat", ""));
    record.sigmas = sigmas;
    CHECK(a1111_fields(a1111_parameters(record))["Schedule type"] == spelled);
  }
  for (const std::string& prompt : kPrompts) {
    CAPTURE(prompt.substr(0, 100));
    PictureRecord record = record_of(spec_of(prompt, prompt));
    record.model = "my, \"model\": v2";
    const std::string text = a1111_parameters(record);
    CHECK(text.find('\0') == std::string::npos);
    std::map<std::string, std::string> fields = a1111_fields(text);
    CHECK(fields["Steps"] == "28");
    CHECK(fields["Seed"] == "42");
    CHECK(fields["Size"] == "1024x1024");
    CHECK(fields["Model hash"] == "0123456789");
    CHECK(nlohmann::json::parse(fields["Model"]) == record.model);
    CHECK(fields.size() == 9);
  }
}

TEST_CASE("hostile settings in a picture are refused", "[metadata]") {
  const nlohmann::json good = nlohmann::json::parse(xdit::output::to_json(record_of(spec_of("a cat", ""))));
  REQUIRE(fault(good.dump()) == "nothing");
  const auto with = [&](const char* name, const nlohmann::json& value) {
    nlohmann::json bad = good;
    bad[name] = value;
    return fault(bad.dump());
  };
  for (const auto& [name, value] : good.items()) {
    nlohmann::json bad = good;
    bad.erase(name);
    const bool may_lack = name == "negative_prompt";  // there was none
    CHECK_THAT(fault(bad.dump()), ContainsSubstring(may_lack ? "nothing" : "lack " + name));
    CHECK_THAT(with(name.c_str(), nlohmann::json::array()), ContainsSubstring(name + ": expected"));
    CHECK_THAT(with(name.c_str(), nullptr), ContainsSubstring(name + ": expected"));
  }
  CHECK_THAT(with("seed", -1), ContainsSubstring("seed: expected"));
  CHECK_THAT(with("seed", 1.0), ContainsSubstring("seed: expected"));
  CHECK_THAT(with("width", UINT64_MAX), ContainsSubstring("width: expected"));
  CHECK_THAT(with("dtype", "bf17"), ContainsSubstring("dtype: expected"));
  CHECK_THAT(with("mode", "fast"), ContainsSubstring("mode: expected"));
  CHECK_THAT(with("grid", "x"), ContainsSubstring("grid: expected"));
  CHECK_THAT(with("grid", {{"gpus", 2}}), ContainsSubstring("grid.gpus: expected"));
  CHECK_THAT(with("lora", "x"), ContainsSubstring("does not know the setting lora"));
  CHECK_THAT(fault("[]"), ContainsSubstring("expected an object"));
  CHECK_THAT(fault("{"), ContainsSubstring("not valid JSON"));
  CHECK_THAT(fault(R"({"seed": 1, "seed": 2})"), ContainsSubstring("duplicate key"));
}

TEST_CASE("a PNG of another program says so", "[metadata]") {
  const xdit::tests::Scratch scratch;
  const xdit::output::TextChunk chunk{"parameters", "a cat\nSteps: 1"};
  xdit::write_file_atomically(
      scratch.path() / "x.png",
      xdit::output::encode_png(std::vector<std::uint8_t>(3), 1, 1, std::span(&chunk, 1)), false);
  CHECK_THROWS_AS(xdit::output::read_record(scratch.path() / "x.png"), Error);
}
