// Every case of tests/data/{flux,sd}/cases.json against diffusers, in float32 on the CPU: ids equal,
// embeddings within 1e-4, latents within 1e-3 (relative, Frobenius), the PNG within one level.
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#include <stb_image.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "core/file.h"
#include "core/json.h"
#include "tests/catch.h"
#include "tests/pipeline/run.h"
#include "tests/scratch.h"
#include "tests/tensors.h"

namespace xdit::test {
namespace {

const std::filesystem::path kData = XDIT_TEST_DATA;
const std::filesystem::path kFlux = kData / "flux";

std::optional<config::Extent> extent(const Json& sides) {
  if (sides.is_null()) return std::nullopt;
  return config::Extent{sides[0].get<std::int64_t>(), sides[1].get<std::int64_t>()};
}

bool refined(const Json& c) {
  return c.contains("refiner_start") && !c.at("refiner_start").is_null();
}

config::RunSpec spec_of(const Json& c, std::size_t picture, const std::filesystem::path& trace) {
  config::RunSpec spec;
  spec.model.dtype = DType::kF32;
  spec.runtime.device = config::Device::kCpu;
  spec.prompts = {c.at("prompts")[picture].get<std::string>()};
  if (!c.at("negative_prompt").is_null()) spec.negative_prompt = c.at("negative_prompt").get<std::string>();
  spec.image = {.width = c.at("width"), .height = c.at("height"), .count = 1};
  spec.sampling.cfg_scale = c.at("cfg_scale");
  spec.sampling.seeds = {c.at("seeds")[picture].get<std::uint64_t>()};
  spec.sampling.steps = c.at("steps");
  if (c.contains("scheduler")) {
    spec.sampling.scheduler = c.at("scheduler");
    spec.sampling.guidance_rescale = c.at("guidance_rescale").get<double>();
    spec.sampling.original_size = extent(c.at("original_size"));
    spec.sampling.crop = extent(c.at("crop"));
    spec.sampling.target_size = extent(c.at("target_size"));
    if (refined(c)) {
      spec.model.refiner = "tiny-refiner";
      spec.sampling.refiner_start = c.at("refiner_start");
      spec.sampling.aesthetic_score = c.at("aesthetic_score");
      spec.sampling.negative_aesthetic_score = c.at("negative_aesthetic_score");
    }
  } else {
    if (c.at("noise_only").get<bool>()) spec.sampling.steps = 1;
    spec.sampling.guidance = c.at("guidance");
    spec.sampling.rng_dtype = from_flag_name(c.at("rng_dtype").get<std::string>());
    spec.sampling.max_sequence_length = c.at("max_sequence_length");
    if (!c.at("shift").is_null()) spec.sampling.shift = c.at("shift").get<double>();
  }
  spec.output.trace = trace.string();
  return spec;
}

// Largest difference between a PNG and a picture [3, H, W] in 0..1, in levels.
int levels_apart(const std::filesystem::path& png, const at::Tensor& picture) {
  int width = 0, height = 0, channels = 0;
  stbi_uc* pixels = stbi_load(png.c_str(), &width, &height, &channels, 3);
  REQUIRE(pixels != nullptr);
  const at::Tensor made =
      at::from_blob(pixels, {height, width, 3}, at::kByte).to(at::kInt).permute({2, 0, 1}).clone();
  std::free(pixels);
  const at::Tensor expected = (picture * 255).round().to(at::kInt);
  REQUIRE(made.sizes() == expected.sizes());
  return (made - expected).abs().max().item<int>();
}

const models::Model* refiner_of(const Json& c) {
  if (!refined(c)) return nullptr;
  static const models::Model refiner = models::open((kData / "sd/tiny-refiner").string(), {}, {}, false);
  return &refiner;
}

void compare(const Json& c, const models::Model& model, const std::map<std::string, at::Tensor>& golden,
             std::size_t picture) {
  const tests::Scratch scratch;
  Recorder recorder;
  const auto trace_file = scratch.path() / "trace.safetensors";
  static_cast<void>(run(spec_of(c, picture, trace_file), model, scratch.path(), recorder, refiner_of(c)));
  const auto trace = read_tensors(trace_file);
  const auto at = static_cast<std::int64_t>(picture);
  for (const auto& [name, all] : golden) {
    CAPTURE(name);
    const at::Tensor expected = all.narrow(0, at, 1);
    REQUIRE(trace.contains(name));
    if (name == "image") {
      CHECK(levels_apart(scratch.path() / "0.png", expected[0]) <= 1);
    } else if (expected.scalar_type() == at::kLong || name == "noise" ||
               at::count_nonzero(expected).item<std::int64_t>() == 0) {
      CHECK(at::equal(trace.at(name), expected));
    } else {
      CHECK(relative_error(trace.at(name), expected) < (name.starts_with("latents") ? 1e-3 : 1e-4));
    }
  }
}

void compare_all(const std::filesystem::path& data, std::size_t at_least) {
  const Json cases = read_json(data / "cases.json", ExitCode::kModel).at("cases");
  REQUIRE(cases.size() >= at_least);
  std::map<std::string, models::Model> opened;
  for (const Json& c : cases) {
    const auto name = c.at("name").get<std::string>();
    const auto folder = c.at("model").get<std::string>();
    if (!opened.contains(folder))
      opened.emplace(folder, models::open((data / folder).string(), {}, {}, false));
    const auto golden = read_tensors(data / "goldens" / (name + ".safetensors"));
    for (std::size_t i = 0; i < c.at("seeds").size(); ++i) {
      CAPTURE(name, i);
      compare(c, opened.at(folder), golden, i);
    }
  }
}

TEST_CASE("FLUX's pictures are diffusers'") {
  compare_all(kFlux, 20);
}

TEST_CASE("pictures of SDXL and Stable Diffusion are diffusers'") {
  compare_all(kData / "sd", 20);
}

TEST_CASE("Stable Diffusion and SDXL as one file give the same bytes") {
  const Json cases = read_json(kData / "sd/cases.json", ExitCode::kModel).at("cases");
  std::set<std::string> seen;
  for (const Json& c : cases) {
    const auto name = c.at("model").get<std::string>();
    if (!seen.insert(name).second) continue;  // a case a model
    CAPTURE(name);
    const std::string folder = (kData / "sd" / name).string();
    const std::string file = std::string(XDIT_SINGLE_FILES) + "/" + name + ".safetensors";
    std::vector<std::string> pictures;
    for (const std::string& path : {folder, file}) {
      const tests::Scratch scratch;
      Recorder recorder;
      static_cast<void>(run(spec_of(c, 0, scratch.path() / "trace.safetensors"),
                            models::open(path, path == file ? folder : "", {}, false), scratch.path(),
                            recorder));
      pictures.push_back(read_file(scratch.path() / "0.png", ExitCode::kOutput));
    }
    CHECK((pictures[0] == pictures[1]));
  }
  CHECK(seen.size() == 3);
}

TEST_CASE("a refiner as one file, behind a folder and behind a file, gives the same bytes") {
  const Json cases = read_json(kData / "sd/cases.json", ExitCode::kModel).at("cases");
  const auto c = std::find_if(cases.begin(), cases.end(), refined);
  REQUIRE(c != cases.end());
  const auto folder = [](const char* name) { return (kData / "sd" / name).string(); };
  const auto file = [](const char* name) {
    return std::string(XDIT_SINGLE_FILES) + "/" + name + ".safetensors";
  };
  std::vector<std::string> pictures;
  for (const auto& [base, refiner] : {std::pair{folder("tiny-sdxl"), folder("tiny-refiner")},
                                      {folder("tiny-sdxl"), file("tiny-refiner")},
                                      {file("tiny-sdxl"), folder("tiny-refiner")},
                                      {file("tiny-sdxl"), file("tiny-refiner")}}) {
    const tests::Scratch scratch;
    Recorder recorder;
    const models::Model model =
        models::open(base, base == file("tiny-sdxl") ? folder("tiny-sdxl") : "", {}, false);
    const models::Model second = models::open_refiner(refiner, model, folder("tiny-refiner"), {});
    static_cast<void>(
        run(spec_of(*c, 0, scratch.path() / "trace.safetensors"), model, scratch.path(), recorder, &second));
    pictures.push_back(read_file(scratch.path() / "0.png", ExitCode::kOutput));
  }
  for (const std::string& picture : pictures) CHECK((picture == pictures.front()));
}

TEST_CASE("black-forest-labs' layout gives the same picture") {
  const models::Model model =
      models::open((kFlux / "tiny-dev-bfl.safetensors").string(), kFlux / "tiny-dev", {}, false);
  const Json cases = read_json(kFlux / "cases.json", ExitCode::kModel).at("cases");
  REQUIRE(cases.front().at("name") == "dev-base");
  compare(cases.front(), model, read_tensors(kFlux / "goldens/dev-base.safetensors"), 0);
}

}  // namespace
}  // namespace xdit::test
