#include "models/sdxl/unet.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/error.h"
#include "nn/ops.h"

namespace xdit::models {
namespace {

at::Tensor joined(const at::Tensor& x, const at::Tensor& skip) {
  const auto channels_last = [](const at::Tensor& picture) { return picture.permute({0, 2, 3, 1}); };
  return at::cat({channels_last(x), channels_last(skip)}, 3).permute({0, 3, 1, 2});
}

}  // namespace

Unet::Unet(const UnetConfig& config, nn::Weights& weights, const nn::Linears& linears,
           std::shared_ptr<nn::cudnn::Attentions> built)
    : config_(config),
      layout_(unet_layout(config)),
      weights_(weights),
      time_in_(weights, linears, "time_embedding"),
      time_projections_(linears.make(weights, "time_projections", true)),
      conv_in_(nn::read_convolution(weights, "conv_in")),
      norm_out_(nn::read_group_norm(weights, "conv_norm_out", config.groups, config.eps)),
      conv_out_(nn::read_convolution(weights, "conv_out")),
      attention_(std::make_unique<nn::TokenAttention>(std::move(built))) {
  if (config.added_width > 0) added_in_.emplace(weights, linears, "add_embedding");
  bool transformers = false;
  const auto make = [&](const std::vector<UnetLayer>& layers, std::int64_t stride,
                        std::vector<UnetBlock>& blocks) {
    for (const UnetLayer& layer : layers) {
      blocks.emplace_back(config, layer, stride, weights, linears);
      transformers = transformers || layer.depth > 0;
    }
  };
  make(layout_.down, 2, down_);
  make(layout_.middle, 1, middle_);
  make(layout_.up, 1, up_);
  if (transformers) cross_attentions_ = linears.make(weights, "cross_attentions", false);
}

at::Tensor Unet::embedding(const UnetInputs& inputs) const {
  const at::TensorOptions options = inputs.text.options();
  const auto embedded = [&](const at::Tensor& values, std::int64_t width) {
    return nn::timestep_embedding(
        values.to(options.device()),
        {.width = width, .cosine_first = config_.cosine_first, .frequency_shift = config_.frequency_shift});
  };
  const at::Tensor times = at::tensor(at::ArrayRef<float>(inputs.timesteps.data(), inputs.timesteps.size()));
  at::Tensor time =
      time_in_(embedded(times, config_.levels.front().channels).to(options.dtype()));  // [steps, C]
  if (!added_in_) return time;
  const at::Tensor sizes =
      at::tensor(at::ArrayRef<double>(inputs.size_ids.data(), inputs.size_ids.size())).to(at::kFloat);
  const at::Tensor added =
      at::cat({inputs.pooled, embedded(sizes, config_.size_channels).flatten().to(options.dtype())});
  if (added.size(0) != config_.added_width)
    throw Error(
        ExitCode::kModel,
        fmt::format("projection_class_embeddings_input_dim: expected {}, for a pooled prompt of {} and "
                    "{} size ids, found {}",
                    added.size(0), inputs.pooled.size(0), sizes.size(0), config_.added_width),
        "unet/config.json");
  return time + (*added_in_)(added.unsqueeze(0));
}

UnetConditioning Unet::prepare(const UnetInputs& inputs) const {
  UnetConditioning conditioning;
  const at::Tensor times = (*time_projections_)(at::silu(embedding(inputs)));  // [steps, all resnets' C]
  const at::Tensor prompt = cross_attentions_ ? (*cross_attentions_)(inputs.text).unsqueeze(0) : at::Tensor();
  std::vector<at::Tensor> first_biases;
  std::int64_t key = 0;
  const auto add = [&](const std::vector<UnetLayer>& layers, const std::vector<UnetBlock>& blocks) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::int64_t width = layers[i].outputs;
      first_biases.push_back(blocks[i].first_bias());
      for (std::int64_t j = 0; j < layers[i].depth; ++j, key += 2 * width) {
        conditioning.keys.push_back(prompt.narrow(2, key, width).contiguous());
        conditioning.values.push_back(prompt.narrow(2, key + width, width).contiguous());
      }
    }
  };
  add(layout_.down, down_);
  add(layout_.middle, middle_);
  add(layout_.up, up_);
  conditioning.biases = (times + at::cat(first_biases)).unsqueeze(1);
  conditioning.now = conditioning.biases[0].clone();
  return conditioning;
}

void Unet::release_conditioning() {
  time_projections_.reset();
  cross_attentions_.reset();
  for (const char* name : {"time_projections.weight", "time_projections.bias", "cross_attentions.weight"})
    weights_.release(name);
}

at::Tensor Unet::forward(const at::Tensor& latents, const UnetConditioning& conditioning,
                         const nn::Spatial& spatial) const {
  UnetStep now(conditioning, *attention_);
  std::vector<const nn::Spatial*> levels{&spatial};
  at::Tensor x = latents.unsqueeze(0)
                     .expand({conditioning.pictures(), -1, -1, -1})
                     .contiguous(at::MemoryFormat::ChannelsLast);
  x = levels.back()->convolve(x, conv_in_);
  std::vector<at::Tensor> skips{x};
  std::int64_t index = 0;
  const auto each = [&](const std::vector<UnetBlock>& blocks, const auto& run) {
    for (const UnetBlock& block : blocks) {
      weights_.enter(index);
      run(block);
      weights_.leave(index++);
    }
  };
  each(down_, [&](const UnetBlock& block) {
    x = skips.emplace_back(block.forward(x, now, *levels.back()));
    if (!block.resample()) return;
    x = skips.emplace_back(levels.back()->convolve_halved(x, *block.resample()));
    levels.push_back(&levels.back()->halved());
  });
  each(middle_, [&](const UnetBlock& block) { x = block.forward(x, now, *levels.back()); });
  each(up_, [&](const UnetBlock& block) {
    x = block.forward(joined(x, skips.back()), now, *levels.back());
    skips.pop_back();
    if (!block.resample()) return;
    const nn::Spatial& small = *levels.back();
    levels.pop_back();
    x = small.convolve_doubled(x, *block.resample(), *levels.back(), skips.back().size(2),
                               skips.back().size(3));
  });
  return spatial.convolve_normed(x, norm_out_, conv_out_);
}

}  // namespace xdit::models
