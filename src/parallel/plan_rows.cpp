#include "parallel/plan_rows.h"

#include <algorithm>
#include <utility>

#include "parallel/plan_weights.h"

namespace xdit::parallel {
namespace {

constexpr auto kFloatBytes = static_cast<std::int64_t>(sizeof(float));

std::int64_t& of(SlabBytes& bytes, RowKind kind) {
  return bytes.at(static_cast<std::size_t>(kind));
}

// Exchanges of a UNet's parts, one after the other.
struct Exchanges {
  struct Size {
    std::int64_t rows, columns;
    [[nodiscard]] Size halved() const { return {(rows + 1) / 2, (columns + 1) / 2}; }
  };
  std::int64_t groups;
  std::int64_t element_bytes;
  std::vector<RowBytes> all;

  void add(RowKind kind, std::int64_t bytes) {
    constexpr std::int64_t kAlignment = 256;
    all.push_back({kind, (bytes + kAlignment - 1) / kAlignment * kAlignment});
  }
  void halo(const Size& size, std::int64_t channels) {
    add(RowKind::kHalo, 2 * kHaloRows * size.columns * channels * element_bytes);
  }
  void moments(const Size& size) { add(RowKind::kMoments, size.rows * groups * 2 * kFloatBytes); }
  void normed(const Size& size, std::int64_t channels) {
    moments(size);
    halo(size, channels);
  }
  void layer(const Size& size, const models::UnetLayer& of) {
    normed(size, of.inputs);
    normed(size, of.outputs);
    if (of.transformer.empty()) return;
    moments(size);
    for (std::int64_t i = 0; i < of.depth; ++i)
      add(RowKind::kTokens, size.rows * size.columns * 2 * of.outputs * element_bytes);
  }
};

}  // namespace

std::vector<RowBytes> row_exchanges(const models::UnetConfig& config, std::int64_t rows, std::int64_t columns,
                                    std::int64_t element_bytes) {
  const models::UnetLayout layout = models::unet_layout(config);
  Exchanges made{.groups = config.groups, .element_bytes = element_bytes, .all = {}};
  std::vector<Exchanges::Size> levels{{rows, columns}};
  made.halo(levels.back(), config.in_channels);
  for (const models::UnetLayer& layer : layout.down) {
    made.layer(levels.back(), layer);
    if (layer.resample.empty()) continue;
    made.halo(levels.back(), layer.outputs);
    levels.push_back(levels.back().halved());
  }
  for (const models::UnetLayer& layer : layout.middle) made.layer(levels.back(), layer);
  for (const models::UnetLayer& layer : layout.up) {
    made.layer(levels.back(), layer);
    if (layer.resample.empty()) continue;
    made.halo(levels.back(), layer.outputs);
    levels.pop_back();
  }
  made.normed(levels.back(), config.levels.front().channels);
  return made.all;
}

models::UnetConfig unet_of(const models::Model& model) {
  const weights::Component& component = model.files.components.at(denoiser_of(model).component);
  return models::read_unet_config(component.config, component.name);
}

std::int64_t displaced_bytes(const std::vector<RowBytes>& exchanges, std::int64_t branches) {
  std::int64_t sum = 0;
  for (const RowBytes& exchange : exchanges) sum += 2 * exchange.bytes;
  return sum * branches;
}

SlabBytes slab_bytes(const models::UnetConfig& config, std::int64_t rows, std::int64_t columns,
                     std::int64_t element_bytes) {
  SlabBytes most(kRowKinds);
  for (const auto& [kind, bytes] : row_exchanges(config, rows, columns, element_bytes))
    of(most, kind) = std::max(of(most, kind), bytes);
  return most;
}

SlabBytes slab_bytes(const models::VaeConfig& config, std::int64_t rows, std::int64_t columns,
                     std::int64_t element_bytes) {
  std::int64_t widest = config.latent_channels;  // channels times what the level is wider than the latents
  std::int64_t inputs = config.channels.back();
  for (std::size_t level = 0; level < config.channels.size(); ++level) {
    const std::int64_t outputs = config.channels[config.channels.size() - 1 - level];
    widest = std::max(widest, std::max(inputs, outputs) << level);
    inputs = outputs;
  }
  const std::int64_t scale = config.downscale();
  SlabBytes most(kRowKinds);
  of(most, RowKind::kHalo) = 2 * kHaloRows * widest * columns * element_bytes;
  of(most, RowKind::kMoments) = rows * scale * config.groups * 2 * kFloatBytes;
  of(most, RowKind::kTokens) =
      config.mid_attention ? rows * columns * 2 * config.channels.back() * element_bytes : 0;
  of(most, RowKind::kPicture) = rows * columns * scale * scale * config.out_channels * element_bytes;
  return most;
}

}  // namespace xdit::parallel
