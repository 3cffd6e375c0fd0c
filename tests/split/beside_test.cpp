// FLUX's text beside its image: where it may be, and that its bytes are those of one after the other. The
// latter needs a GPU: XDIT_TEST_CUDA=1.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>

#include "core/json.h"
#include "models/flux/denoiser.h"
#include "models/flux/tables.h"
#include "models/vae/tables.h"
#include "parallel/replayed_denoiser.h"
#include "parallel/spread.h"
#include "tests/catch.h"
#include "tests/comm/ranks.h"
#include "tests/split/denoise.h"

namespace xdit::parallel {
namespace {

constexpr std::int64_t kTextTokens = 256, kRows = 32, kColumns = 48;  // more than a GPU takes at once

models::Model wide_model() {
  models::Model model;
  model.files.components["transformer"].config = {{"in_channels", 16},         {"num_layers", 5},
                                                  {"num_single_layers", 2},    {"num_attention_heads", 8},
                                                  {"joint_attention_dim", 64}, {"pooled_projection_dim", 32},
                                                  {"attention_head_dim", 128}};
  return model;
}

at::Tensor draw(at::IntArrayRef shape) {
  return at::randn(shape, at::TensorOptions(at::kCUDA).dtype(at::kBFloat16));
}

nn::ResidentWeights weights_of(const models::Model& model) {
  std::map<std::string, at::Tensor> tensors;
  for (const weights::Parameter& parameter :
       models::flux_parameters(models::read_flux_config(model.files.components.at("transformer").config, "")))
    tensors[parameter.name] = draw(parameter.shape) / std::sqrt(static_cast<double>(parameter.shape.back()));
  return nn::ResidentWeights(std::move(tensors));
}

TEST_CASE("text beside image, again and again") {
  if (std::getenv("XDIT_TEST_CUDA") == nullptr) return;
  const c10::InferenceMode no_gradients;
  at::manual_seed(12);
  const models::Model model = wide_model();
  nn::ResidentWeights weights = weights_of(model);
  const auto built = std::make_shared<nn::cudnn::Attentions>();
  const auto beside = std::make_shared<nn::SideStream>(at::Device(at::kCUDA, 0));
  nn::LocalAttention in_order(built), in_parallel(built, beside);
  const auto denoiser_of = [&](nn::Attention& attention) {
    return models::make_flux_denoiser(model, {0, 7}, weights, nn::LocalLinears(), attention,
                                      nn::LocalSpatial());
  };
  const auto reference = denoiser_of(in_order), denoiser = denoiser_of(in_parallel);
  Replays replays;
  ReplayedDenoiser replayed(*denoiser, nullptr, replays);
  const std::array timesteps{700.F};
  const std::array image{models::TokenRange{0, kRows * kColumns}};
  const models::LoopShape shape{.timesteps = timesteps,
                                .guidance = 1,
                                .size_ids = {},
                                .latent_rows = 2 * kRows,
                                .latent_columns = 2 * kColumns,
                                .text = {0, kTextTokens},
                                .image = image};
  at::Tensor before;
  for (int round = 0; round < 20; ++round) {
    CAPTURE(round);
    const models::PromptEmbedding prompt{draw({kTextTokens, 64}), draw({32})};
    const at::Tensor latents = draw({kRows * kColumns, 16});
    const auto run = [&](models::Denoiser& of) {
      const auto branch = of.prepare(prompt, shape);
      of.select(*branch, 0);
      return of.predict(*branch, latents, {});
    };
    const at::Tensor expected = run(*reference);
    CHECK(at::equal(run(*denoiser), expected));
    CHECK(at::equal(run(replayed), expected));
    CHECK(expected.isfinite().all().item<bool>());
    if (before.defined()) CHECK_FALSE(at::equal(before, expected));
    before = expected;
  }
  CHECK(beside->stream() != nullptr);
}

// Whether attention of that plan takes the stream that it is offered.
void check_takes(bool expected, config::RunSpec::Parallel parallel, int ranks) {
  const tests::Run run{.model = "tiny-schnell", .parallel = parallel, .ranks = ranks};
  const models::Model model = tests::open_model(run);
  const Plan plan = tests::plan_of(run, model);
  const std::shared_ptr<const comm::Job> job = comm::Job::create(ranks);
  const tests::Failures failures = tests::run_processes(ranks, [&](int rank) {
    const auto beside = std::make_shared<nn::SideStream>();
    Spread spread({.plan = plan,
                   .rank = rank,
                   .model = model,
                   .vae = models::read_vae_config(model.files.components.at("vae").config, "vae/config.json"),
                   .peers = ranks == 1 ? nullptr : job,
                   .timeout = std::chrono::seconds(30),
                   .options = at::TensorOptions(),
                   .beside = beside});
    tests::expect((&spread.attention().beside() == beside.get()) == expected, "as expected");
    spread.finish();
  });
  CAPTURE(expected, ranks);
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

TEST_CASE("where text may be beside image") {
  check_takes(true, {}, 1);
  check_takes(true, {.gather = 2}, 2);
  check_takes(true, {.ulysses = 2}, 2);
  // Others exchange something in the order of one stream.
  check_takes(false, {.ring = 2}, 2);
  check_takes(false, {.tensor = 2}, 2);
  check_takes(false, {.pipefusion = 2}, 2);
  check_takes(false, {.gather = 2, .shard_weights = "true"}, 2);
}

}  // namespace
}  // namespace xdit::parallel
