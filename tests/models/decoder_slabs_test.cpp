// The decoder's law on one device: a slab of rows that is given what it needs of the others computes what
// the whole picture's run computes there, operation by operation. With XDIT_TEST_CUDA set, FLUX's decoder at
// 1024 x 1024 on a GPU; XDIT_TEST_PRINT then shows its time and memory.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "models/vae/decoder.h"
#include "tests/catch.h"
#include "tests/models/tiny.h"
#include "tests/nn/timing.h"

namespace xdit::test {
namespace {

/// A whole picture's run that remembers what slabs of it get from each other.
class Recording final : public nn::Spatial {
 public:
  struct Log {
    std::vector<at::Tensor> tokens, moments, padded;
  };
  explicit Recording(Log& log) : log_(log) {}
  [[nodiscard]] const Spatial& halved() const override { return *this; }
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& rows) const override {
    return log_.tokens.emplace_back(rows.clone()).flatten(1, 2);
  }

 private:
  [[nodiscard]] at::Tensor whole_moments(const at::Tensor& rows, std::int64_t row_elements) const override {
    log_.moments.push_back(rows.clone());  // a merge overwrites its rows
    return nn::merge_rows(rows, row_elements);
  }
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override {
    padded.narrow(2, 0, halo).zero_();
    padded.narrow(2, padded.size(2) - halo, halo).zero_();
    log_.padded.push_back(padded.clone());
  }
  [[nodiscard]] nn::RowPlace place(std::int64_t rows) const override { return {0, rows, rows}; }
  Log& log_;
};

/// A slab's run. `differences` says where it left the whole picture's.
class Replay final : public nn::Spatial {
 public:
  Replay(const Recording::Log& log, std::int64_t all_rows, std::int64_t first, std::int64_t rows)
      : log_(log), all_rows_(all_rows), first_(first), rows_(rows) {}
  [[nodiscard]] const Spatial& halved() const override { return *this; }
  [[nodiscard]] at::Tensor gather_tokens(const at::Tensor& rows) const override {
    const at::Tensor& all = log_.tokens.at(tokens_++);
    compare("tokens", tokens_, rows, of_slab(all, rows.size(1)));
    return all.flatten(1, 2);
  }
  [[nodiscard]] const std::string& differences() const { return differences_; }

 private:
  [[nodiscard]] at::Tensor whole_moments(const at::Tensor& rows, std::int64_t row_elements) const override {
    const at::Tensor& all = log_.moments.at(moments_++);
    compare("moments", moments_, rows, of_slab(all, rows.size(1)));
    return nn::merge_rows(all.clone(), row_elements);
  }
  void fill_halo(const at::Tensor& padded, std::int64_t halo) const override {
    const at::Tensor& all = log_.padded.at(padded_++);
    const std::int64_t rows = padded.size(2) - 2 * halo;
    const std::int64_t first = place(rows).first;
    compare("input of convolution", padded_, padded.narrow(2, halo, rows), all.narrow(2, first + halo, rows));
    padded.copy_(all.narrow(2, first, rows + 2 * halo));
  }
  [[nodiscard]] nn::RowPlace place(std::int64_t rows) const override {
    return {rows / rows_ * first_, rows, rows / rows_ * all_rows_};
  }
  [[nodiscard]] at::Tensor of_slab(const at::Tensor& all, std::int64_t rows) const {
    return all.narrow(1, place(rows).first, rows);
  }
  void compare(const char* what, std::size_t number, const at::Tensor& mine, const at::Tensor& theirs) const {
    if (at::equal(mine, theirs)) return;
    differences_ += std::string(what) + " " + std::to_string(number) + "; ";
  }
  const Recording::Log& log_;
  std::int64_t all_rows_;
  std::int64_t first_;
  std::int64_t rows_;
  mutable std::size_t tokens_ = 0, moments_ = 0, padded_ = 0;
  mutable std::string differences_;
};

at::Tensor latents_of(const models::VaeConfig& config, std::int64_t rows, std::int64_t columns,
                      at::Device device, at::ScalarType type) {
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
  return at::randn({1, config.latent_channels, rows, columns}, generator).to(device, type);
}

void check_slabs(const models::VaeDecoder& decoder, const models::VaeConfig& config,
                 const at::Tensor& latents) {
  Recording::Log log;
  const at::Tensor whole = decoder.decode(latents, Recording(log));
  CHECK(at::equal(whole, decoder.decode(latents, nn::LocalSpatial())));
  CHECK(whole.isfinite().all().item<bool>());
  const std::int64_t rows = latents.size(2);
  for (std::int64_t first = 0, count = 1; first < rows; first += count, count = 2 * count + 1) {
    count = std::min(count, rows - first);
    CAPTURE(rows, first, count);
    const Replay slab(log, rows, first, count);
    const at::Tensor part = decoder.decode(latents.narrow(2, first, count), slab);
    CHECK(slab.differences() == "");
    CHECK(at::equal(part, whole.narrow(2, config.downscale() * first, config.downscale() * count)));
  }
}

void print_cost(const models::VaeDecoder& decoder, const at::Tensor& latents) {
  const nn::LocalSpatial local;
  const double us = microseconds([&] { static_cast<void>(decoder.decode(latents, local)); }, 7);
  namespace allocator = c10::cuda::CUDACachingAllocator;
  allocator::emptyCache();
  allocator::resetPeakStats(0);
  static_cast<void>(decoder.decode(latents, local));
  const auto bytes = allocator::getDeviceStats(0).allocated_bytes[0].peak;
  std::printf("decoding %ld x %ld %s: %.2f ms, peak %.2f GB with weights\n", 8 * latents.size(2),
              8 * latents.size(3), at::toString(latents.scalar_type()), us / 1000,
              static_cast<double>(bytes) / 1e9);
}

TEST_CASE("latents with a mean and a deviation a channel are brought to the decoder's") {
  const c10::InferenceMode no_gradients;
  const models::Model model = models::open((kFlux / "tiny-dev").string(), {}, {}, false);
  auto config = models::read_vae_config(model.files.components.at("vae").config, "vae");
  const nn::ResidentWeights weights = load(model, "vae", at::kFloat);
  const at::Tensor latents = latents_of(config, 3, 5, at::kCPU, at::kFloat);
  at::Tensor expected = latents.clone();
  for (std::int64_t channel = 0; channel < config.latent_channels; ++channel) {
    config.means.push_back(0.25 * static_cast<double>(channel));
    config.deviations.push_back(1 + 0.5 * static_cast<double>(channel));
    expected[0][channel] =
        latents[0][channel] * config.deviations.back() / config.scaling_factor + config.means.back();
  }
  const models::VaeDecoder decoder(config, weights);
  CHECK(at::allclose(decoder.decode_scaled(latents, nn::LocalSpatial()),
                     decoder.decode(expected, nn::LocalSpatial()), 1e-5, 1e-5));
}

TEST_CASE("a slab of the decoder, given its halos, is the whole picture's") {
  const c10::InferenceMode no_gradients;
  if (std::getenv("XDIT_TEST_CUDA") == nullptr) {
    for (const auto& folder :
         {kFlux / "tiny-dev", kFlux / "tiny-schnell", kSd / "tiny-sdxl", kSd / "tiny-sd21"})
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
        const models::Model model = models::open(folder.string(), {}, {}, false);
        const auto config = models::read_vae_config(model.files.components.at("vae").config, "vae");
        const nn::ResidentWeights weights = load(model, "vae", type);
        const at::ScalarType held = weights.get("decoder.conv_in.weight").scalar_type();
        CAPTURE(folder, at::toString(type));
        check_slabs(models::VaeDecoder(config, weights), config, latents_of(config, 9, 7, at::kCPU, held));
      }
    return;
  }
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setDeterministicCuDNN(true);
  const models::Model model = models::open("FLUX.1-dev", {}, {}, true);
  const auto config = models::read_vae_config(model.files.components.at("vae").config, "vae");
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    CAPTURE(at::toString(type));
    const nn::ResidentWeights weights = load(model, "vae", type, at::Device("cuda:0"));
    const models::VaeDecoder decoder(config, weights);
    check_slabs(decoder, config, latents_of(config, 128, 128, at::Device("cuda:0"), type));
    check_slabs(decoder, config, latents_of(config, 45, 70, at::Device("cuda:0"), type));
    if (std::getenv("XDIT_TEST_PRINT") == nullptr) continue;
    for (const std::int64_t side : {128, 256, 512})
      print_cost(decoder, latents_of(config, side, side, at::Device("cuda:0"), type));
  }
}

}  // namespace
}  // namespace xdit::test
