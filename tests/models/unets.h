#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/json.h"
#include "models/sdxl/tables.h"
#include "models/sdxl/unet.h"
#include "tests/models/tiny.h"

namespace xdit::test {

inline const std::filesystem::path kUnets = std::filesystem::path(XDIT_TEST_DATA) / "unet";

/// A network of tests/data/unet without the rest of a pipeline.
struct TinyUnet {
  std::string name;
  models::UnetConfig config;
  nn::ResidentWeights weights;
};
inline TinyUnet load_unet(const std::string& name, at::ScalarType type, at::Device device = at::kCPU) {
  models::Model model;
  weights::Component& component = model.files.components["unet"];
  component.config = read_json(kUnets / name / "config.json", ExitCode::kModel);
  component.table = weights::read_safetensors(kUnets / name / "diffusion_pytorch_model.safetensors");
  component.keys = weights::identity_map(component.table);
  const models::UnetConfig config = models::read_unet_config(component.config, name + "/config.json");
  models::Network network{
      .component = "unet", .parameters = models::unet_parameters(config), .ignored = {}, .placed = {}};
  network.placed = weights::place(network.parameters, component.table, component.keys);
  model.networks.push_back(std::move(network));
  return {name, config, load(model, "unet", type, device)};
}

/// What a forward takes, from one seed as scripts/goldens/make_unet.py draws it.
struct UnetCase {
  at::Tensor latents;  ///< [C, h, w]
  at::Tensor text;     ///< [S, D]
  at::Tensor pooled;   ///< [P], or undefined
  std::vector<float> timesteps;
  std::vector<double> size_ids;
  [[nodiscard]] models::UnetInputs inputs() const {
    return {.text = text, .pooled = pooled, .timesteps = timesteps, .size_ids = size_ids};
  }
};
inline UnetCase draw_case(const TinyUnet& tiny, const Json& inputs, std::uint64_t seed, std::int64_t rows,
                          std::int64_t columns, at::ScalarType type, at::Device device = at::kCPU) {
  const models::UnetConfig& config = tiny.config;
  const at::Generator draw = at::make_generator<at::CPUGeneratorImpl>(seed);
  UnetCase drawn{
      .latents = at::randn({config.in_channels, rows, columns}, draw).to(device, type),
      .text =
          at::randn({inputs.at("text_tokens").get<std::int64_t>(), config.text_width}, draw).to(device, type),
      .pooled = {},
      .timesteps = inputs.at("timesteps").get<std::vector<float>>(),
      .size_ids = inputs.at("size_ids").value(tiny.name, std::vector<double>{})};
  const auto sizes = static_cast<std::int64_t>(drawn.size_ids.size());
  if (config.added_width > 0)
    drawn.pooled = at::randn({config.added_width - sizes * config.size_channels}, draw).to(device, type);
  return drawn;
}

/// Predictions [timesteps, C, h, w] at all rows of the latents or some.
inline at::Tensor predict(const models::Unet& unet, const UnetCase& c, const at::Tensor& latents,
                          const nn::Spatial& spatial) {
  const models::UnetConditioning conditioning = unet.prepare(c.inputs());
  std::vector<at::Tensor> outputs;
  for (std::size_t i = 0; i < c.timesteps.size(); ++i) {
    conditioning.select(static_cast<std::int64_t>(i));
    outputs.push_back(unet.forward(latents, conditioning, spatial)[0]);
  }
  return at::stack(outputs);
}

}  // namespace xdit::test
