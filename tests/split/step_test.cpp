// N ranks equal one, bit for bit: two denoiser steps of the small FLUX models over every grid of gather x
// Ulysses.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "models/denoiser.h"
#include "parallel/loop.h"
#include "parallel/split_attention.h"
#include "tests/catch.h"
#include "tests/comm/ranks.h"
#include "tests/models/tiny.h"

namespace xdit::parallel {
namespace {

struct Case {
  std::string model;
  std::int64_t gather, ulysses;
  std::int64_t text, rows, columns;  // tokens
};

models::PromptEmbedding prompt_of(const models::Model& model, std::int64_t tokens, at::ScalarType type) {
  const Json& config = model.files.components.at("transformer").config;
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(7);
  return {
      .tokens = at::randn({tokens, config.at("joint_attention_dim").get<std::int64_t>()}, generator).to(type),
      .pooled = at::randn({config.at("pooled_projection_dim").get<std::int64_t>()}, generator).to(type)};
}

// Latents after two steps over the tokens of `text` and `image`.
at::Tensor steps(const models::Model& model, nn::Attention& attention, const Case& c, at::ScalarType type,
                 const models::TokenRange& text, const models::TokenRange& image) {
  nn::ResidentWeights weights = test::load(model, "transformer", type);
  const nn::LocalLinears linears;
  const auto denoiser = models::make_denoiser(model, weights, linears, attention);
  const auto sampler = schedulers::make_sampler(
      {.name = "flow-match-euler", .steps = 2, .image_tokens = c.rows * c.columns, .shift = {}},
      model.files.scheduler_config);
  std::vector<float> times;
  for (const float timestep : sampler->timesteps()) times.push_back(timestep / 1000);
  const auto branch = denoiser->prepare(prompt_of(model, c.text, type), {.times = times,
                                                                         .guidance = 3.5,
                                                                         .latent_rows = 2 * c.rows,
                                                                         .latent_columns = 2 * c.columns,
                                                                         .text = text,
                                                                         .image = image});
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(8);
  const at::Tensor noise = at::randn({model.shape.latent_channels, 2 * c.rows, 2 * c.columns}, generator);
  const at::Tensor packed = denoiser->pack(noise).to(type);
  const std::int64_t count = image.count < 0 ? packed.size(0) : image.count;
  LocalGuide guide;
  return SerialLoop().run(
      *denoiser, *sampler, guide, {.positive = branch.get(), .negative = nullptr, .scale = 1},
      packed.narrow(0, image.first, count).contiguous(), [](std::int64_t, const at::Tensor&) {});
}

void check(const Case& c, at::ScalarType type) {
  const models::Model model = models::open((test::kFlux / c.model).string(), {}, {}, false);
  const auto ranks = static_cast<int>(c.gather * c.ulysses);
  const tests::Failures failures = tests::run_ranks(ranks, [&](tests::Rank& rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    const TokenSplit split = split_tokens(c.text, c.rows * c.columns, c.gather, c.ulysses);
    const auto at = static_cast<std::size_t>(rank.group.rank());
    const Json& config = model.files.components.at("transformer").config;
    SplitAttention attention(rank.group, split, config.at("num_attention_heads"),
                             config.at("attention_head_dim"), at::TensorOptions().dtype(type));
    const at::Tensor mine = steps(model, attention, c, type, {split.text[at].first, split.text[at].count},
                                  {split.image[at].first, split.image[at].count});
    nn::LocalAttention local;
    const at::Tensor all = steps(model, local, c, type, {}, {});
    tests::expect(all.isfinite().all().item<bool>(), "finite");
    tests::expect(all.std().item<float>() > 0.1, "lively");
    tests::expect(at::equal(mine, all.narrow(0, split.image[at].first, split.image[at].count)),
                  "equal to one rank");
  });
  CAPTURE(c.model, c.gather, c.ulysses, c.text, c.rows, c.columns, at::toString(type));
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

TEST_CASE("every rank count and grid gives one rank's latents") {
  std::vector<Case> cases{{"tiny-dev", 1, 1, 13, 5, 7},     {"tiny-dev", 2, 1, 13, 5, 7},
                          {"tiny-dev", 1, 3, 13, 5, 7},     {"tiny-dev", 2, 3, 13, 5, 7},
                          {"tiny-dev", 5, 1, 3, 3, 5},      {"tiny-dev", 8, 1, 3, 1, 5},
                          {"tiny-schnell", 1, 4, 13, 5, 7}, {"tiny-schnell", 2, 4, 7, 3, 7}};
  if (std::getenv("XDIT_TEST_FULL") != nullptr)
    for (std::int64_t gather = 1; gather <= 8; ++gather)
      for (const std::int64_t ulysses : {1, 2, 3, 4})
        if (gather * ulysses <= 8)
          for (const auto& [text, rows, columns] :
               {std::array<std::int64_t, 3>{47, 9, 11}, {1, 1, 1}, {33, 8, 8}})
            cases.push_back(
                {ulysses == 3 ? "tiny-dev" : "tiny-schnell", gather, ulysses, text, rows, columns});
  for (const Case& c : cases)
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) check(c, type);
}

TEST_CASE("tokens are split evenly, without holes") {
  for (const std::int64_t total : {0, 1, 7, 512, 4097})
    for (const std::int64_t ranks : {1, 2, 3, 5, 8}) {
      const TokenSplit split = split_tokens(total, 2 * total, ranks, 1);
      std::int64_t next = 0;
      for (const comm::Range& range : split.text) {
        CHECK(range.first == next);
        CHECK(std::abs(range.count * ranks - total) < ranks);
        next += range.count;
      }
      CHECK(next == total);
    }
}

}  // namespace
}  // namespace xdit::parallel
