// A forward of each kind of UNet against diffusers': equal in float32 at even and odd sizes, and in bf16 and
// fp16 no further from float32 than diffusers itself is.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "tests/catch.h"
#include "tests/models/errors.h"
#include "tests/models/unets.h"

namespace xdit::test {
namespace {

at::Tensor whole_prediction(const std::string& name, const Json& inputs, std::uint64_t seed,
                            const std::vector<std::int64_t>& size, at::ScalarType type) {
  TinyUnet tiny = load_unet(name, type, device());
  const models::Unet unet(tiny.config, tiny.weights, nn::LocalLinears());
  const UnetCase c = draw_case(tiny, inputs, seed, size[0], size[1], type, device());
  return predict(unet, c, c.latents, nn::LocalSpatial());
}

TEST_CASE("a UNet's forward is diffusers'") {
  const c10::InferenceMode no_gradients;
  at::globalContext().setAllowTF32CuDNN(false);
  const Json file = read_errors("unet");
  const Json& inputs = file.at("inputs");
  for (const std::string name :
       {"tiny-sdxl", "tiny-refiner", "tiny-sd15", "tiny-sd21", "shallow", "hollow"}) {
    const auto expected = read_tensors(kUnets / (name + ".safetensors"));
    for (const Json& size : inputs.at("sizes")) {
      const auto sides = size.get<std::vector<std::int64_t>>();
      const at::Tensor golden = expected.at(std::to_string(sides[0]) + "x" + std::to_string(sides[1]));
      const double error =
          relative_error(whole_prediction(name, inputs, inputs.at("seeds")[0], sides, at::kFloat), golden);
      CAPTURE(name, sides, error);
      CHECK(error < 1e-4);
      if (std::getenv("XDIT_TEST_PRINT") != nullptr)
        std::printf("%s %ld x %ld: %.2e\n", name.c_str(), sides[0], sides[1], error);
    }
    static_cast<void>(
        check_half_errors(name, inputs.at("seeds"), file.at("errors").at(name), [&](auto seed, auto type) {
          return whole_prediction(name, inputs, seed, inputs.at("error_size"), type);
        }));
  }
}

TEST_CASE("what a UNet is prepared with must fit it") {
  const c10::InferenceMode no_gradients;
  const Json inputs = read_json(kUnets / "errors.json", ExitCode::kModel).at("inputs");
  TinyUnet tiny = load_unet("tiny-sdxl", at::kFloat);
  const models::Unet unet(tiny.config, tiny.weights, nn::LocalLinears());
  UnetCase c = draw_case(tiny, inputs, 1, 4, 4, at::kFloat);
  static_cast<void>(unet.prepare(c.inputs()));
  c.size_ids.pop_back();
  CHECK_THROWS_AS(unet.prepare(c.inputs()), Error);
}

TEST_CASE("a UNet's config is read or refused by name") {
  const Json good = read_json(kUnets / "tiny-sdxl" / "config.json", ExitCode::kModel);
  const auto message = [&](const char* key, const Json& value) -> std::string {
    Json config = good;
    config[key] = value;
    try {
      static_cast<void>(models::read_unet_config(config, "config.json"));
    } catch (const Error& error) {
      return error.code() == ExitCode::kModel && error.message().starts_with(key) ? "refused"
                                                                                  : error.message();
    }
    return "read";
  };
  for (const auto& [key, value] : std::vector<std::pair<const char*, Json>>{
           {"act_fn", "gelu"},
           {"addition_embed_type", "text"},
           {"addition_time_embed_dim", 7},
           {"attention_head_dim", {1, 2}},
           {"attention_head_dim", {1, 2, 5}},
           {"attention_type", "gated"},
           {"block_out_channels", {8, 16}},
           {"class_embed_type", "timestep"},
           {"conv_in_kernel", 5},
           {"cross_attention_dim", {20, 20, 24}},
           {"down_block_types", {"DownBlock2D", "DownBlock2D", "AttnDownBlock2D"}},
           {"encoder_hid_dim", 64},
           {"freq_shift", 4},
           {"in_channels", 9},
           {"mid_block_type", "UNetMidBlock2DSimpleCrossAttn"},
           {"norm_num_groups", 3},
           {"num_attention_heads", 8},
           {"only_cross_attention", {false, true, false}},
           {"projection_class_embeddings_input_dim", nullptr},
           {"resnet_time_scale_shift", "scale_shift"},
           {"time_cond_proj_dim", 256},
           {"time_embedding_type", "fourier"},
           {"transformer_layers_per_block", {1, 1, -1}},
           {"transformer_layers_per_block", {1, 1}},
           {"transformer_layers_per_block", {1, {1, 1}, {1}}}}) {
    CAPTURE(key, value.dump());
    const std::string said = message(key, value);
    // Fewer levels than other lists have: those are named.
    CHECK((said == "refused" || (std::string(key) == "block_out_channels" && said != "read")));
  }
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, Json>>{{"cross_attention_dim", {20, 20, 20}},
                                                 {"dropout", 0.1},
                                                 {"mid_block_scale_factor", 1.0},
                                                 {"mid_block_type", nullptr},
                                                 {"only_cross_attention", {false}},
                                                 {"upcast_attention", true}}) {
    CAPTURE(key, value.dump());
    CHECK(message(key, value) == "read");
  }
}

TEST_CASE("a UNet's layers follow its config, uneven ones too") {
  Json config = read_json(kUnets / "tiny-sdxl" / "config.json", ExitCode::kModel);
  config["layers_per_block"] = {1, 2, 3};
  config["transformer_layers_per_block"] = {0, {2, 1}, {4, 5, 6}};
  config["reverse_transformer_layers_per_block"] = {{1, 2, 3, 4}, {5, 6, 7}, 1};
  const models::UnetConfig unet = models::read_unet_config(config, "config.json");
  const models::UnetLayout layout = models::unet_layout(unet);
  const auto depths = [](const std::vector<models::UnetLayer>& layers) {
    std::vector<std::int64_t> all;
    for (const models::UnetLayer& layer : layers) all.push_back(layer.depth);
    return all;
  };
  CHECK(depths(layout.down) == std::vector<std::int64_t>{0, 2, 1, 4, 5, 6});
  CHECK(depths(layout.middle) == std::vector<std::int64_t>{4, 0});
  CHECK(depths(layout.up) == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 0, 0});
  std::vector<std::int64_t> inputs;
  for (const models::UnetLayer& layer : layout.up) inputs.push_back(layer.inputs);
  CHECK(inputs == std::vector<std::int64_t>{48, 48, 48, 40, 40, 32, 24, 24, 16});
  CHECK(unet.blocks() == 17);
}

}  // namespace
}  // namespace xdit::test
