// The text encoders and VAEs of SDXL, its refiner and Stable Diffusion against diffusers': equal in float32,
// and in bf16 and fp16 no further from float32 than diffusers itself is.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <map>
#include <nlohmann/json.hpp>

#include "models/vae/decoder.h"
#include "nn/spatial.h"
#include "tests/catch.h"
#include "tests/models/errors.h"
#include "tests/models/tiny.h"
#include "text/clip_encoder.h"

namespace xdit::test {
namespace {

const std::map<std::string, at::Tensor text::ClipStates::*> kStates{
    {"last", &text::ClipStates::last},
    {"penultimate", &text::ClipStates::penultimate},
    {"pooled", &text::ClipStates::pooled}};

text::ClipStates clip(const models::Model& model, const std::string& component, const Json& inputs,
                      std::uint64_t seed, at::ScalarType type) {
  const nn::ResidentWeights weights = load(model, component, type, device());
  const text::ClipConfig config = text::read_clip_config(model.files.components.at(component));
  const std::int64_t end = config.vocabulary - 1;
  const at::Tensor ids = at::randint(0, end, {inputs.at("clip_tokens").get<std::int64_t>()},
                                     at::make_generator<at::CPUGeneratorImpl>(seed), at::kLong);
  ids[-1] = end;
  return text::ClipEncoder(config, weights).encode(ids.to(device()));
}

// SDXL's is in float32 in a run in fp16.
at::Tensor vae(const models::Model& model, const Json& inputs, std::uint64_t seed, at::ScalarType type) {
  const nn::ResidentWeights weights = load(model, "vae", type, device());
  const models::VaeConfig config = models::read_vae_config(model.files.components.at("vae").config, "vae");
  const Json& size = inputs.at("vae_latent");
  const at::Tensor latents = at::randn({1, config.latent_channels, size[0], size[1]},
                                       at::make_generator<at::CPUGeneratorImpl>(seed));
  return models::VaeDecoder(config, weights)
      .decode(latents.to(device(), type).to(weights.get("decoder.conv_in.weight").scalar_type()),
              nn::LocalSpatial());
}

TEST_CASE("one forward of each text encoder and VAE of SDXL and Stable Diffusion") {
  const c10::InferenceMode no_gradients;
  at::globalContext().setAllowTF32CuDNN(false);
  const Json file = read_errors("sd");
  const Json& inputs = file.at("inputs");
  for (const auto& [name, parts] : file.at("errors").items()) {
    const models::Model model = models::open((kSd / name).string(), {}, {}, false);
    const auto expected = read_tensors(kSd / "errors" / (name + ".safetensors"));
    REQUIRE(parts.size() == 1 + 3 * model.text_encoders.size());
    for (const auto& [part, errors] : parts.items()) {
      const std::size_t dot = part.find('.');
      const SeededForward forward = [&](std::uint64_t seed, at::ScalarType type) {
        if (dot == std::string::npos) return vae(model, inputs, seed, type);
        return clip(model, part.substr(0, dot), inputs, seed, type).*kStates.at(part.substr(dot + 1));
      };
      CAPTURE(name, part);
      const at::Tensor output = check_half_errors(name + " " + part, inputs.at("seeds"), errors, forward);
      CHECK(relative_error(output, expected.at(part)) < 3e-6);
    }
  }
}

}  // namespace
}  // namespace xdit::test
