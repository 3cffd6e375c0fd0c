// Stable Diffusion and SDXL as one file, beside the folders that the ctest fixture single_files wrote them
// from.
#include "models/sdxl/ldm.h"

#include <functional>
#include <numeric>

#include "models/registry.h"
#include "models/sdxl/builtin.h"
#include "models/sdxl/ldm_keys.h"
#include "tests/catch.h"
#include "tests/weights/support.h"

namespace xdit::models::test {
namespace {

using namespace weights::test;
using weights::TensorTable;

constexpr std::array kNames{"tiny-sdxl", "tiny-refiner", "tiny-sd15", "tiny-sd21"};

std::string folder_of(const std::string& name) {
  return std::string(XDIT_TEST_DATA) + "/sd/" + name;
}
std::string file_of(const std::string& name) {
  const fs::path file = fs::path(XDIT_SINGLE_FILES) / (name + ".safetensors");
  INFO("scripts/goldens/ldm_layout.py FOLDER FILE writes " << file);
  REQUIRE(fs::exists(file));
  return file.string();
}

/// A changed copy of a single file.
template <typename Change>
std::string changed(const TemporaryFolder& folder, const std::string& name, Change&& change) {
  std::vector<Tensor> tensors = load(weights::read_safetensors(file_of(name)));
  change(tensors);
  const fs::path file = folder.path / "changed.safetensors";
  write(file, safetensors(tensors));
  return file.string();
}
std::string error_opening(const std::string& file, const std::string& base) {
  return error_of([&] { static_cast<void>(open(file, base, {}, false)); });
}

TEST_CASE("one file holds the bytes of the folder that it was written from") {
  for (const std::string name : kNames) {
    const Model folder = open(folder_of(name), {}, {}, false);
    const Model file = open(file_of(name), folder_of(name), {}, false);
    CHECK(file.files.name == name);
    CHECK(file.family == folder.family);
    CHECK(file.files.scheduler_config == folder.files.scheduler_config);
    CHECK(file.files.tokenizers == folder.files.tokenizers);
    REQUIRE(file.networks.size() == folder.networks.size());
    for (std::size_t i = 0; i < file.networks.size(); ++i) {
      const Network &a = file.networks[i], &b = folder.networks[i];
      CHECK(a.component == b.component);
      CHECK(a.not_in_float16 == b.not_in_float16);
      REQUIRE(a.placed.size() == b.placed.size());
      for (std::size_t j = 0; j < a.placed.size(); ++j) {
        CAPTURE(name, b.placed[j].name);
        if (a.placed[j].name == "text_projection")
          continue;  // transposed: the pipeline's test compares pictures
        CHECK(a.placed[j].name == b.placed[j].name);
        CHECK(a.placed[j].shape == b.placed[j].shape);
        CHECK((bytes_of(a.placed[j], file.files.components.at(a.component).table) ==
               bytes_of(b.placed[j], folder.files.components.at(b.component).table)));
      }
    }
    CHECK(file.defaults.height == folder.defaults.height);
  }
}

/// The published model as one file without data, from the names that its built-in config has.
std::string published(const TemporaryFolder& folder, const Model& builtin) {
  TensorTable table;
  std::string header = "{";
  std::uint64_t offset = 0;
  const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    const auto bytes = 2 * static_cast<std::uint64_t>(
                               std::reduce(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>()));
    header += fmt::format(R"({}"{}":{{"dtype":"F16","shape":[{}],"data_offsets":[{},{}]}})",
                          offset == 0 ? "" : ",", name, fmt::join(shape, ","), offset, offset + bytes);
    offset += bytes;
  };
  const bool sdxl = builtin.family == "sdxl";
  for (const Network& network : builtin.networks) {
    const weights::Component& component = builtin.files.components.at(network.component);
    Modules modules;
    std::string prefix;
    if (network.component == "unet") {
      modules = ldm_unet_modules(read_unet_config(component.config, ""));
      prefix = "model.diffusion_model.";
    } else if (network.component == "vae") {
      modules = ldm_vae_modules(read_vae_config(component.config, ""));
      prefix = "first_stage_model.";
    } else if (component.config.at("hidden_act") == "quick_gelu") {
      modules = {{"text_model", "text_model"}};
      prefix = sdxl ? "conditioner.embedders.0.transformer." : "cond_stage_model.transformer.";
    } else {
      modules = openclip_modules(component.config.at("num_hidden_layers"));
      prefix = sdxl                               ? "conditioner.embedders.1.model."
               : builtin.family == "sdxl-refiner" ? "conditioner.embedders.0.model."
                                                  : "cond_stage_model.model.";
    }
    for (const weights::Parameter& parameter : network.parameters)
      for (const weights::Wanted& part : parameter.parts) {
        const Modules::value_type* longest = nullptr;  // of the modules here that the name is in
        for (const Modules::value_type& module : modules)
          if (part.name.starts_with(module.second) &&
              (longest == nullptr || module.second.size() > longest->second.size()))
            longest = &module;
        REQUIRE(longest != nullptr);
        std::string name = longest->first + part.name.substr(longest->second.size());
        std::vector<std::int64_t> shape = part.shape;
        if (const std::size_t q = name.find(".q_proj.");
            q != std::string::npos && prefix.ends_with("model.")) {
          name.replace(q, 8, ".in_proj_");
          shape.front() *= 3;
        }
        const bool fused =
            name.find(".k_proj.") != std::string::npos || name.find(".v_proj.") != std::string::npos;
        if (!fused || !prefix.ends_with("model.")) add(prefix + name, shape);
      }
  }
  const fs::path file = folder.path / "published.safetensors";
  write(file, safetensors(header + "}", ""));
  fs::resize_file(file, fs::file_size(file) + offset);  // a hole
  return file.string();
}

TEST_CASE("without a base, the published models' files give the published configs") {
  for (const char* name : {"sdxl", "sdxl-refiner", "sd15", "sd21"}) {
    CAPTURE(name);
    const TemporaryFolder folder;
    const Model builtin = open(name, {}, {}, true);
    const Model file = open(published(folder, builtin), {}, {}, false);
    CHECK(file.family == builtin.family);
    CHECK(file.files.scheduler_config == builtin.files.scheduler_config);
    CHECK(file.defaults.height == builtin.defaults.height);
    CHECK(file.shape.heads == builtin.shape.heads);
    REQUIRE(file.networks.size() == builtin.networks.size());
    for (std::size_t i = 0; i < file.networks.size(); ++i) {
      const std::string& component = file.networks[i].component;
      CAPTURE(component);
      CHECK(file.networks[i].parameters.size() == builtin.networks[i].parameters.size());
      CHECK(file.networks[i].not_in_float16 == builtin.networks[i].not_in_float16);
      const nlohmann::json& found = file.files.components.at(component).config;
      for (const auto& [key, value] : builtin.files.components.at(component).config.items()) {
        CAPTURE(key);
        if (key == "projection_dim" && component == "text_encoder") continue;  // it has none
        if (key == "layers_per_block" || key == "transformer_layers_per_block")
          continue;  // one of several spellings
        CHECK(found.at(key) == value);
      }
    }
  }
}

TEST_CASE("a refiner's file beside SDXL's folder takes its tokenizer, and none of its settings") {
  const TemporaryFolder folder;
  const std::string file = published(folder, open("sdxl-refiner", {}, {}, true));
  const Model sdxl = open(folder_of("tiny-sdxl"), {}, {}, false);
  const fs::path tokenizer = fs::path(folder_of("tiny-sdxl")) / "tokenizer_2";
  for (const std::string base : {std::string(), folder_of("tiny-sdxl")}) {
    CAPTURE(base);
    const Model refiner = open_refiner(file, sdxl, base, {});
    CHECK(refiner.refines);
    CHECK(refiner.files.tokenizers.at("tokenizer_2") == tokenizer);
    CHECK(refiner.files.components.size() == 3);
    CHECK(refiner.files.settings == refiner_settings());
    CHECK(refiner.files.components.at("vae").config.at("force_upcast") == true);
  }
}

TEST_CASE("what shapes do not say has to come from a base") {
  CHECK_THAT(error_opening(file_of("tiny-sdxl"), {}), ContainsSubstring("--base FOLDER with configs"));
  CHECK_THAT(
      error_opening(file_of("tiny-sdxl"), folder_of("tiny-sd15")),
      ContainsSubstring("is a StableDiffusionXLPipeline, and its base folder is a StableDiffusionPipeline"));
  CHECK_THAT(error_opening(file_of("tiny-sd15"), "/nowhere"),
             ContainsSubstring("model_index.json is missing"));
}

TEST_CASE("v prediction and zero terminal SNR are told by tensors of those names") {
  const TemporaryFolder folder;
  const std::string file = changed(folder, "tiny-sdxl", [](std::vector<Tensor>& tensors) {
    for (const char* name : {"v_pred", "ztsnr"})
      tensors.push_back({name, DType::kF32, {1}, std::string(4, '\0')});
  });
  const nlohmann::json config = open(file, folder_of("tiny-sdxl"), {}, false).files.scheduler_config;
  CHECK(config.at("prediction_type") == "v_prediction");
  CHECK(config.at("rescale_betas_zero_snr") == true);
  CHECK(config.at("timestep_spacing") == "trailing");
}

TEST_CASE("what a file lacks is the base's") {
  const TemporaryFolder folder;
  const std::string file = changed(folder, "tiny-sd15", [](std::vector<Tensor>& tensors) {
    std::erase_if(tensors,
                  [](const Tensor& tensor) { return !tensor.name.starts_with("model.diffusion_model."); });
  });
  CHECK(open(file, folder_of("tiny-sd15"), {}, false).networks.size() == 3);
  CHECK_THAT(error_opening(file, {}), ContainsSubstring("no text encoder"));
}

TEST_CASE("a base for one file may hold configs alone") {
  const TemporaryFolder folder;
  fs::copy(folder_of("tiny-sd15"), folder.path / "base", fs::copy_options::recursive);
  for (const auto& entry : fs::recursive_directory_iterator(folder.path / "base"))
    if (entry.path().extension() == ".safetensors") fs::remove(entry.path());
  CHECK(open(file_of("tiny-sd15"), folder.path / "base", {}, false).networks.size() == 3);
  const std::string file = changed(folder, "tiny-sd15", [](std::vector<Tensor>& tensors) {
    std::erase_if(tensors,
                  [](const Tensor& tensor) { return tensor.name.starts_with("first_stage_model."); });
  });
  CHECK_THAT(error_opening(file, folder.path / "base"), ContainsSubstring("holds the weights of vae"));
}

TEST_CASE("wrong single files are told") {
  const TemporaryFolder folder;
  const auto error_with = [&](const std::string& name, const std::string& tensor, auto&& change) {
    const std::string file = changed(folder, name, [&](std::vector<Tensor>& tensors) {
      const auto found =
          std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& t) { return t.name == tensor; });
      REQUIRE(found != tensors.end());
      change(*found);
    });
    return error_opening(file, folder_of(name));
  };
  const auto rename = [](const std::string& to) { return [to](Tensor& tensor) { tensor.name = to; }; };
  const std::string unet = "model.diffusion_model.";
  CHECK_THAT(error_with("tiny-sd15", "betas", rename("surprise")),
             ContainsSubstring("tensor \"surprise\" has no place in this model"));
  CHECK_THAT(
      error_with("tiny-sd15", unet + "middle_block.1.norm.bias", rename(unet + "middle_block.1.norm.x")),
      ContainsSubstring("tensor \"mid_block.attentions.0.norm.bias\" is missing"));
  CHECK_THAT(error_with("tiny-sdxl", "denoiser.sigmas", rename("edm_mean")), ContainsSubstring("EDM"));
  CHECK_THAT(
      error_with("tiny-sd15", unet + "input_blocks.0.0.weight",
                 [](Tensor& tensor) {
                   tensor.shape[1] = 9;
                   tensor.bytes.resize(tensor.bytes.size() / 4 * 9);
                 }),
      ContainsSubstring("in_channels: expected 4 as out_channels (this is an inpainting model), found 9"));
  CHECK_THAT(error_with("tiny-sd15", unet + "input_blocks.4.0.in_layers.2.weight", rename("betas.x")),
             ContainsSubstring("blocks of its UNet"));
  CHECK_THAT(error_with("tiny-sdxl", "conditioner.embedders.1.model.ln_final.bias",
                        [](Tensor& tensor) { tensor.name += "x"; }),
             ContainsSubstring("\"text_model.final_layer_norm.bias\" is missing"));
  const std::string any = folder_of("tiny-sd15") + "/unet/diffusion_pytorch_model.safetensors";
  CHECK_THAT(error_opening(any, folder_of("tiny-sd15")), ContainsSubstring("layout is not known"));
}

}  // namespace
}  // namespace xdit::models::test
