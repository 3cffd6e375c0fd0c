#include <fmt/format.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>

#include "config/values.h"
#include "tests/catch.h"
#include "tests/config/support.h"

namespace xdit::config {
namespace {

// Two values of every key, unlike its default where it has three.
struct Sample {
  std::string a;
  std::string b;
};
const std::map<std::string, Sample, std::less<>>& samples() {
  static const std::map<std::string, Sample, std::less<>> table{
      {"model.path", {"x", "y"}},
      {"model.base", {"x", "y"}},
      {"model.tokenizers", {"x", "y"}},
      {"model.refiner", {"x", "y"}},
      {"model.dtype", {"fp16", "fp32"}},
      {"model.load_format", {"auto", "dummy"}},
      {"model.quantize", {"fp8", "none"}},
      {"prompt", {"a cat", "a: \"dog\" # \\"}},
      {"negative_prompt", {"blurry", "dark"}},
      {"image.width", {"16", "16384"}},
      {"image.height", {"512", "768"}},
      {"image.count", {"2", "3"}},
      {"sampling.scheduler", {"flow-match-heun", "dpm++-2m"}},
      {"sampling.sigmas", {"karras", "sgm-uniform"}},
      {"sampling.timestep_spacing", {"leading", "trailing"}},
      {"sampling.prediction", {"epsilon", "v-prediction"}},
      {"sampling.refiner_start", {"0.5", "1"}},
      {"sampling.aesthetic_score", {"7", "6.5"}},
      {"sampling.negative_aesthetic_score", {"1", "2"}},
      {"sampling.original_size", {"512x768", "auto"}},
      {"sampling.crop", {"0x256", "16x0"}},
      {"sampling.target_size", {"16384x8", "1x1"}},
      {"sampling.steps", {"4", "20"}},
      {"sampling.guidance", {"0", "2.5"}},
      {"sampling.cfg_scale", {"4", "1.25"}},
      {"sampling.guidance_rescale", {"0.7", "auto"}},
      {"sampling.shift", {"auto", "1.15"}},
      {"sampling.seed", {"5", "1-4,9"}},
      {"sampling.rng_dtype", {"fp32", "bf16"}},
      {"sampling.max_sequence_length", {"32", "256"}},
      {"parallel.gpus", {"GPU-0a,1", "0,1"}},
      {"parallel.data", {"2", "8"}},
      {"parallel.cfg", {"1", "2"}},
      {"parallel.pipefusion", {"2", "8"}},
      {"parallel.pipefusion_warmup", {"2", "8"}},
      {"parallel.ulysses", {"2", "8"}},
      {"parallel.ring", {"2", "8"}},
      {"parallel.gather", {"2", "8"}},
      {"parallel.tensor", {"2", "8"}},
      {"parallel.patch", {"displaced", "exact"}},
      {"parallel.patch_warmup", {"2", "8"}},
      {"parallel.shard_weights", {"true", "false"}},
      {"parallel.vae", {"1", "8"}},
      {"parallel.allow", {"rounding", "approximate"}},
      {"output.path", {"a.png", "b/{seed}.png"}},
      {"output.metadata", {"true", "false"}},
      {"output.overwrite", {"true", "false"}},
      {"output.report", {"r.json", "s.json"}},
      {"output.trace", {"t.safetensors", "u.safetensors"}},
      {"output.preview", {"4", "0"}},
      {"output.preview_path", {"live.png", "{seed}.preview.png"}},
      {"runtime.device", {"cpu", "cuda"}},
      {"runtime.transport", {"host", "peer"}},
      {"runtime.timeout", {"5s", "0.25s"}},
      {"runtime.deterministic", {"true", "false"}},
      {"runtime.cuda_graphs", {"true", "false"}},
      {"runtime.warm_up", {"true", "false"}},
  };
  return table;
}

std::string in_yaml(const Key& key, const std::string& value) {
  const bool text = key.type == kText || key.type == kTexts;
  const std::string written = text ? nlohmann::json(value).dump() : value;
  const std::size_t dot = key.path.find('.');
  if (dot == std::string_view::npos) return fmt::format("{}: {}\n", key.path, written);
  return fmt::format("{}: {{{}: {}}}\n", key.path.substr(0, dot), key.path.substr(dot + 1),
                     text || value.find(',') == std::string::npos ? written : "\"" + value + "\"");
}

std::string upper_variable(std::string_view path) {
  std::string name = "XDIT_GEN_";
  for (const char c : path)
    name += c == '.' ? "__" : std::string(1, static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  return name;
}

// The layer that source number `source` makes of one value: model default, profile, environment, flag.
Layer from_source(std::size_t source, const Key& key, const std::string& value,
                  const TemporaryFolder& folder) {
  const std::string path(key.path);
  if (source == 0)
    return {{.key = path, .values = {value}, .where = "default of M", .code = ExitCode::kModel}};
  if (source == 1) return read_text(folder, in_yaml(key, value));
  if (source == 2) {
    const std::string entry = upper_variable(path) + "=" + value;
    const std::array<const char*, 4> environment{"HOME=/", entry.c_str(), "XDIT_GENERAL=1", nullptr};
    return read_environment(environment.data());
  }
  return {parse_assignment(path + "=" + value)};
}

std::string resolved_value(const Key& key, const std::vector<Layer>& layers) {
  std::vector<Layer> all{minimum()};
  all.insert(all.end(), layers.begin(), layers.end());
  return key.print(resolve(all, no_draw).spec, key);
}

}  // namespace

TEST_CASE("every key is in the samples, and the other way round") {
  CHECK(keys().size() == samples().size());
  for (const Key& key : keys()) {
    CAPTURE(key.path);
    CHECK(samples().count(key.path) == 1);
    CHECK(find_key(key.path) == &key);
  }
  CHECK(find_key("sampling.step") == nullptr);
  CHECK(find_key("sampling") == nullptr);
}

TEST_CASE("built-in < model default < profile < environment < flag, for every key") {
  const TemporaryFolder folder;
  for (const Key& key : keys()) {
    CAPTURE(key.path);
    const auto& [a, b] = samples().find(key.path)->second;
    const std::string printed_a = resolved_value(key, {from_source(3, key, a, folder)});
    const std::string printed_b = resolved_value(key, {from_source(3, key, b, folder)});
    CHECK((printed_a != printed_b || a == b));
    if (key.type != kText && key.type != kTexts) CHECK(printed_a == a);  // printed as it is written
    for (std::size_t low = 0; low < 4; ++low) {
      CHECK(resolved_value(key, {from_source(low, key, a, folder)}) == printed_a);  // over the built-in value
      for (std::size_t high = low + 1; high < 4; ++high) {
        CAPTURE(low, high);
        for (const auto& [under, over, printed] : {std::tuple(a, b, printed_b), std::tuple(b, a, printed_a)})
          CHECK(resolved_value(key, {from_source(low, key, under, folder),
                                     from_source(high, key, over, folder)}) == printed);
      }
    }
  }
}

TEST_CASE("built-in values are FLUX.1-dev's") {
  const Resolved resolved = resolve(std::vector<Layer>{minimum()}, no_draw);
  CHECK(resolved.spec.image.width == 1024);
  CHECK(resolved.spec.sampling.steps == 28);
  CHECK(resolved.spec.sampling.guidance == 3.5);
  CHECK(resolved.spec.sampling.max_sequence_length == 512);
  CHECK(resolved.warnings.empty());
  CHECK(resolved.drawn_seeds.empty());
}

TEST_CASE("a value that loses is checked too") {
  std::vector<Layer> layers{
      minimum(), {parse_assignment("sampling.steps=0")}, {parse_assignment("sampling.steps=4")}};
  CHECK_THROWS_WITH(resolve(layers, no_draw), ContainsSubstring("expected an integer 1..1000, found '0'"));
}

TEST_CASE("winner is the last of the last layer that has the key") {
  const std::vector<Layer> layers{
      {parse_assignment("sampling.steps=1"), parse_assignment("sampling.steps=2")},
      {parse_assignment("sampling.guidance=2")}};
  CHECK(winner(layers, "sampling.steps")->values.front() == "2");
  CHECK(winner(layers, "sampling.guidance")->where == "--set sampling.guidance");
  CHECK(winner(layers, "prompt") == nullptr);
}

TEST_CASE("environment: by flag, by alias, by key; unknown and contradicting variables") {
  const auto read = [](const char* one, const char* two = nullptr) {
    const std::array<const char*, 3> environment{one, two, nullptr};
    return read_environment(environment.data());
  };
  for (const char* entry :
       {"XDIT_GEN_STEPS=7", "XDIT_GEN_NUM_INFERENCE_STEPS=7", "XDIT_GEN_SAMPLING__STEPS=7"}) {
    const Layer layer = read(entry);
    REQUIRE(layer.size() == 1);
    CHECK(layer[0].key == "sampling.steps");
    CHECK(layer[0].values == std::vector<std::string>{"7"});
    CHECK(std::string(entry).starts_with(layer[0].where + "="));
  }
  CHECK(read("XDIT_GEN_PROMPT=a=b")[0].values.front() == "a=b");
  CHECK_THROWS_WITH(read("XDIT_GEN_STEP=7"),
                    ContainsSubstring("XDIT_GEN_STEP") && ContainsSubstring("try: XDIT_GEN_STEPS"));
  CHECK_THROWS_WITH(read("XDIT_GEN_STEPS=7", "XDIT_GEN_SAMPLING__STEPS=8"),
                    ContainsSubstring("both set sampling.steps"));
  CHECK(read_environment(nullptr).empty());
  try {
    static_cast<void>(resolve(std::vector<Layer>{minimum(), read("XDIT_GEN_DTYPE=bf61")}, no_draw));
    FAIL("accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kUsage);
    CHECK(error.where() == "XDIT_GEN_DTYPE");
    CHECK(error.fix() == "XDIT_GEN_DTYPE=bf16");
  }
}

TEST_CASE("--set: unknown keys and malformed assignments") {
  CHECK(parse_assignment("prompt=").values == std::vector<std::string>{""});
  CHECK_THROWS_WITH(parse_assignment("sampling.setps=4"), ContainsSubstring("--set sampling.steps="));
  CHECK_THROWS_WITH(parse_assignment("sampling.steps"), ContainsSubstring("expected key=value"));
  CHECK_THROWS_WITH(parse_assignment("sampling={steps: 4}"), ContainsSubstring("unknown key 'sampling'"));
  CHECK_THROWS_WITH(parse_assignment("size=32x48"), ContainsSubstring("image.width and image.height"));
}

}  // namespace xdit::config
