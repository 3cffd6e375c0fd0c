// What is known of a decoder's convolutions before it runs.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/json.h"
#include "models/vae/decoder.h"
#include "tests/catch.h"
#include "tests/models/tiny.h"

namespace xdit::test {
namespace {

models::VaeConfig config_of(const models::Model& model) {
  return models::read_vae_config(model.files.components.at("vae").config, "vae");
}

/// Lists the pictures that a decoder's run gives halos: what kernels of 3 x 3 take.
class Listing final : public nn::Spatial {
 public:
  [[nodiscard]] const Spatial& halved() const override { return *this; }
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& rows) const override { return rows.flatten(1, 2); }
  mutable std::vector<std::int64_t> padded_columns, padded_channels;

 private:
  [[nodiscard]] at::Tensor whole_moments(const at::Tensor& rows, std::int64_t row_elements) const override {
    return nn::merge_rows(rows, row_elements);
  }
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override {
    nn::zero_margin(padded, halo);
    padded_columns.push_back(padded.size(3));
    padded_channels.push_back(padded.size(1));
  }
  [[nodiscard]] nn::RowPlace place(std::int64_t rows) const override { return {0, rows, rows}; }
};

TEST_CASE("a decoder's convolutions are known before it runs") {
  const c10::InferenceMode no_gradients;
  for (const auto& folder : {kFlux / "tiny-dev", kSd / "tiny-sdxl", kSd / "tiny-sd21"}) {
    CAPTURE(folder);
    const models::Model model = models::open(folder.string(), {}, {}, false);
    const models::VaeConfig config = config_of(model);
    std::vector<std::pair<std::int64_t, std::int64_t>> sizes, held;
    const std::vector<nn::ExpectedConvolution> expected = models::decoder_convolutions(config, 4, 5);
    for (const nn::ExpectedConvolution& of : expected) sizes.emplace_back(of.outputs, of.inputs);
    for (const weights::Parameter& parameter : models::vae_decoder_parameters(config))
      if (parameter.shape.size() == 4 && parameter.shape[2] == 3)
        held.emplace_back(parameter.shape[0], parameter.shape[1]);
    std::ranges::sort(sizes);
    std::ranges::sort(held);
    CHECK(sizes == held);

    // Each of them wants a row of its neighbours, of the small picture where the large one is doubled.
    const nn::ResidentWeights weights = load(model, "vae", at::kFloat);
    const Listing listing;
    static_cast<void>(
        models::VaeDecoder(config, weights).decode(at::zeros({1, config.latent_channels, 4, 5}), listing));
    std::vector<std::int64_t> columns, channels;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      columns.push_back(expected[i == 0 ? 0 : i - 1].columns);
      channels.push_back(expected[i].inputs);
      CHECK(expected[i].rows * 5 == expected[i].columns * 4);
    }
    CHECK(listing.padded_columns == columns);
    CHECK(listing.padded_channels == channels);
  }
}

TEST_CASE("plans that were expected are those that would be built, on a GPU") {
  if (std::getenv("XDIT_TEST_CUDA") == nullptr) return;
  const c10::InferenceMode no_gradients;
  const at::Device device("cuda:0");
  const models::Model model = models::open("sdxl", {}, {}, true);
  const models::VaeConfig config = config_of(model);
  const nn::ResidentWeights weights = load(model, "vae", at::kFloat, device);
  const models::VaeDecoder decoder(config, weights);
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{64, 64}, {24, 40}}) {
    CAPTURE(rows, columns);
    const at::Tensor latents = at::randn({1, config.latent_channels, rows, columns}, at::device(device));
    const auto plain = std::make_shared<nn::Convolutions>(/*tf32=*/true);
    const auto told = std::make_shared<nn::Convolutions>(/*tf32=*/true);
    const at::Tensor picture = decoder.decode(latents, nn::LocalSpatial(plain));
    const std::vector<nn::ExpectedConvolution> expected = models::decoder_convolutions(config, rows, columns);
    told->expect(expected, device);
    // One of them waits for all.
    static_cast<void>((*told)(at::zeros({1, config.channels.back(), rows + 2, columns}, at::device(device)),
                              nn::read_convolution(weights, "decoder.mid_block.resnets.0.conv1")));
    CHECK(plain->count() > 0);
    CHECK(told->count() == plain->count());
    CHECK(at::equal(decoder.decode(latents, nn::LocalSpatial(told)), picture));
    CHECK(told->count() == plain->count());
  }
}

}  // namespace
}  // namespace xdit::test
