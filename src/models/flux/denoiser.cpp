#include "models/flux/denoiser.h"

#include <ATen/ATen.h>

#include "models/flux/flux.h"

namespace xdit::models {
namespace {

class FluxBranch final : public Branch {
 public:
  explicit FluxBranch(FluxConditioning prepared) : conditioning(std::move(prepared)) {}
  [[nodiscard]] std::vector<at::Tensor> tensors() const override {
    return {conditioning.text, conditioning.modulation, conditioning.now, conditioning.rotary};
  }
  [[nodiscard]] std::unique_ptr<Branch> clone() const override {
    return std::make_unique<FluxBranch>(FluxConditioning{.text = conditioning.text.clone(),
                                                         .modulation = conditioning.modulation.clone(),
                                                         .now = conditioning.now.clone(),
                                                         .rotary = conditioning.rotary.clone()});
  }
  FluxConditioning conditioning;
};

class FluxDenoiser final : public Denoiser {
 public:
  FluxDenoiser(const FluxConfig& config, BlockRange blocks, nn::Weights& weights, const nn::Linears& linears,
               nn::Attention& attention)
      : flux_(config, blocks, weights, linears), attention_(attention) {}

  std::unique_ptr<Branch> prepare(const PromptEmbedding& prompt, const LoopShape& shape) override {
    std::vector<float> times;
    for (const float timestep : shape.timesteps) times.push_back(timestep / 1000);
    return std::make_unique<FluxBranch>(
        flux_.prepare({.text = prompt.tokens.narrow(0, shape.text.first, shape.text.count),
                       .pooled = prompt.pooled,
                       .times = times,
                       .guidance = shape.guidance,
                       .rows = shape.latent_rows / 2,
                       .columns = shape.latent_columns / 2,
                       .image = shape.image}));
  }

  void prepared_all() override { flux_.release_modulation(); }

  void select(const Branch& branch, std::int64_t step) override {
    static_cast<const FluxBranch&>(branch).conditioning.select(step);
  }

  at::Tensor predict(const Branch& branch, const at::Tensor& input, const ForwardPart& part) override {
    return flux_.forward(input, static_cast<const FluxBranch&>(branch).conditioning, part, attention_);
  }

  at::Tensor pack(const at::Tensor& latents) const override {
    return latents
        .unflatten(2, {-1, 2})     // [C, h, w / 2, 2]
        .unflatten(1, {-1, 2})     // [C, h / 2, 2, w / 2, 2]
        .permute({1, 3, 0, 2, 4})  // [h / 2, w / 2, C, 2, 2]
        .flatten(2)
        .flatten(0, 1);  // [T, 4 C]
  }

  at::Tensor unpack(const at::Tensor& packed, std::int64_t rows, std::int64_t columns) const override {
    return packed
        .unflatten(0, {rows / 2, columns / 2})  // [h / 2, w / 2, 4 C]
        .unflatten(2, {-1, 2, 2})               // [h / 2, w / 2, C, 2, 2]
        .permute({2, 0, 3, 1, 4})               // [C, h / 2, 2, w / 2, 2]
        .flatten(3)
        .flatten(1, 2);  // [C, h, w]
  }

 private:
  Flux flux_;
  nn::Attention& attention_;
};

}  // namespace

std::unique_ptr<Denoiser> make_flux_denoiser(const Model& model, BlockRange blocks, nn::Weights& weights,
                                             const nn::Linears& linears, nn::Attention& attention,
                                             const nn::Spatial& /*spatial*/,
                                             const std::shared_ptr<nn::cudnn::Attentions>& /*built*/) {
  const weights::Component& component = model.files.components.at("transformer");
  return std::make_unique<FluxDenoiser>(read_flux_config(component.config, "transformer/config.json"), blocks,
                                        weights, linears, attention);
}

}  // namespace xdit::models
