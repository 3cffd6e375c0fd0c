#include "models/sdxl/denoiser.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/error.h"
#include "models/sdxl/unet.h"

namespace xdit::models {
namespace {

class UnetBranch final : public Branch {
 public:
  UnetBranch(UnetConditioning prepared, std::int64_t latent_columns)
      : conditioning(std::move(prepared)), columns(latent_columns) {}
  [[nodiscard]] std::vector<at::Tensor> tensors() const override {
    std::vector<at::Tensor> all{conditioning.biases, conditioning.now};
    for (const auto* of : {&conditioning.keys, &conditioning.values})
      all.insert(all.end(), of->begin(), of->end());
    return all;
  }
  [[nodiscard]] std::unique_ptr<Branch> clone() const override {
    UnetConditioning copy{
        .biases = conditioning.biases.clone(), .now = conditioning.now.clone(), .keys = {}, .values = {}};
    for (const at::Tensor& x : conditioning.keys) copy.keys.push_back(x.clone());
    for (const at::Tensor& x : conditioning.values) copy.values.push_back(x.clone());
    return std::make_unique<UnetBranch>(std::move(copy), columns);
  }
  UnetConditioning conditioning;
  std::int64_t columns;
};

class UnetDenoiser final : public Denoiser {
 public:
  UnetDenoiser(const UnetConfig& config, nn::Weights& weights, const nn::Linears& linears,
               const nn::Spatial& spatial, const std::shared_ptr<nn::cudnn::Attentions>& built)
      : unet_(config, weights, linears, built), spatial_(spatial) {}

  std::unique_ptr<Branch> prepare(const PromptEmbedding& prompt, const LoopShape& shape) override {
    return std::make_unique<UnetBranch>(unet_.prepare({.text = prompt.tokens,
                                                       .pooled = prompt.pooled,
                                                       .timesteps = shape.timesteps,
                                                       .size_ids = shape.size_ids}),
                                        shape.latent_columns);
  }

  std::unique_ptr<Branch> join(const Branch& a, const Branch& b) override {
    const auto& first = static_cast<const UnetBranch&>(a);
    return std::make_unique<UnetBranch>(
        joined(first.conditioning, static_cast<const UnetBranch&>(b).conditioning), first.columns);
  }

  void prepared_all() override { unet_.release_conditioning(); }

  void select(const Branch& branch, std::int64_t step) override {
    static_cast<const UnetBranch&>(branch).conditioning.select(step);
  }

  at::Tensor predict(const Branch& branch, const at::Tensor& input, const ForwardPart& /*part*/) override {
    if (input.size(0) == 0) return input;  // more ranks than rows
    const auto& prepared = static_cast<const UnetBranch&>(branch);
    const std::int64_t rows = input.size(0) / prepared.columns;
    const at::Tensor predictions =
        unet_.forward(unpack(input, rows, prepared.columns), prepared.conditioning, spatial_);
    return pack(predictions.size(0) == 1 ? predictions[0] : predictions);
  }

  at::Tensor pack(const at::Tensor& latents) const override {
    return latents.flatten(-2).transpose(-1, -2).contiguous();  // of several pictures, too
  }

  at::Tensor unpack(const at::Tensor& packed, std::int64_t rows, std::int64_t columns) const override {
    return packed.unflatten(0, {rows, columns}).permute({2, 0, 1});
  }

  at::Tensor as_diffusers(const at::Tensor& packed, std::int64_t rows, std::int64_t columns) const override {
    return unpack(packed, rows, columns);
  }

 private:
  Unet unet_;
  const nn::Spatial& spatial_;
};

}  // namespace

std::unique_ptr<Denoiser> make_unet_denoiser(const Model& model, BlockRange blocks, nn::Weights& weights,
                                             const nn::Linears& linears, nn::Attention& /*attention*/,
                                             const nn::Spatial& spatial,
                                             const std::shared_ptr<nn::cudnn::Attentions>& built) {
  const weights::Component& component = model.files.components.at("unet");
  const UnetConfig config = read_unet_config(component.config, "unet/config.json");
  XDIT_ASSERT(blocks.first == 0 && blocks.count == config.blocks());
  return std::make_unique<UnetDenoiser>(config, weights, linears, spatial, built);
}

}  // namespace xdit::models
