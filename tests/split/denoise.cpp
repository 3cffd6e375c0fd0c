#include "tests/split/denoise.h"

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "models/denoiser.h"
#include "schedulers/sampler.h"
#include "tests/comm/memory.h"
#include "tests/models/tiny.h"

namespace xdit::tests {
namespace {

models::PromptEmbedding prompt_of(const models::Model& model, const Run& run, std::uint64_t seed) {
  const Json& config = model.files.components.at("transformer").config;
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return {
      .tokens =
          at::randn({run.text, config.at("joint_attention_dim").get<std::int64_t>()}, generator).to(run.type),
      .pooled = at::randn({config.at("pooled_projection_dim").get<std::int64_t>()}, generator).to(run.type)};
}

config::RunSpec spec_of(const Run& run, const models::Model& model) {
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.sampling.steps = run.steps;
  spec.sampling.cfg_scale = run.cfg_scale;
  spec.sampling.max_sequence_length = run.text;
  spec.image.height = run.rows * model.shape.pixels_per_token;
  spec.image.width = run.columns * model.shape.pixels_per_token;
  spec.parallel = run.parallel;
  spec.parallel.gpus = std::to_string(run.ranks);
  spec.runtime.device = config::Device::kCpu;
  if (relayed()) spec.runtime.transport = config::Transport::kHost;
  spec.model.dtype = run.type == at::kFloat ? DType::kF32 : DType::kBF16;
  spec.model.quantize = run.quantize;
  return spec;
}

}  // namespace

models::Model open_model(const Run& run) {
  return models::open((test::kFlux / run.model).string(), {}, {}, false);
}

parallel::Plan plan_of(const Run& run, const models::Model& model) {
  const parallel::Machine machine{.gpus = {}, .host_memory = std::uint64_t{1} << 40U, .cores = 2};
  return parallel::make_plan(spec_of(run, model), model, machine);
}

LoadedRank::LoadedRank(const Run& run, const models::Model& model, const parallel::Plan& plan,
                       std::int64_t rank, const std::shared_ptr<const comm::Job>& peers)
    : mine(plan.ranks.at(static_cast<std::size_t>(rank))),
      vae(models::read_vae_config(model.files.components.at("vae").config, "vae/config.json")),
      spread({.plan = plan,
              .rank = rank,
              .model = model,
              .vae = vae,
              .branches = run.cfg_scale > 1 ? 2 : 1,
              .peers = peers,
              .timeout = std::chrono::seconds(30),
              .options = at::TensorOptions().dtype(run.type)}),
      loader(plan, mine, model, spread, at::TensorOptions().dtype(run.type)),
      transformer(loader.expect("transformer")) {
  transformer.read();
  transformer.exchange();
}

at::Tensor denoise(const Run& run, const models::Model& model, std::int64_t rank,
                   const std::shared_ptr<const comm::Job>& peers) {
  const parallel::Plan plan = plan_of(run, model);
  LoadedRank loaded(run, model, plan, rank, peers);
  auto& [mine, vae, spread, loader, transformer] = loaded;
  const bool guided = run.cfg_scale > 1;
  const auto denoiser = models::make_denoiser(model, {mine.blocks.first, mine.blocks.count},
                                              *transformer.weights, spread.linears(), spread.attention(),
                                              spread.patches(), std::make_shared<nn::cudnn::Attentions>());
  const auto sampler = schedulers::make_sampler(
      {.name = run.sampler, .steps = run.steps, .image_tokens = run.rows * run.columns},
      run.sampler.starts_with("flow") ? model.files.scheduler_config : Json::object());
  std::vector<models::TokenRange> image;
  for (const parallel::Range& band : mine.image_tokens) image.push_back({band.first, band.count});
  const models::LoopShape shape{.timesteps = sampler->timesteps(),
                                .guidance = 3.5,
                                .size_ids = {},
                                .latent_rows = 2 * run.rows,
                                .latent_columns = 2 * run.columns,
                                .text = {mine.text_tokens.first, mine.text_tokens.count},
                                .image = image};
  const auto positive = denoiser->prepare(prompt_of(model, run, 7), shape);
  const auto negative = denoiser->prepare(prompt_of(model, run, 6), shape);
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(8);
  const auto draw = [&](schedulers::Draw) {
    const at::Tensor all =
        denoiser->pack(at::randn({model.shape.latent_channels, 2 * run.rows, 2 * run.columns}, generator));
    std::vector<at::Tensor> part;
    for (const models::TokenRange& range : image) part.push_back(all.narrow(0, range.first, range.count));
    return at::cat(part).to(run.type);
  };
  const at::Tensor latents = spread.loop().run(
      *denoiser, *sampler, spread.guide(),
      {.positive = positive.get(),
       .negative = guided ? negative.get() : nullptr,
       .scale = run.cfg_scale,
       .rescale = run.rescale,
       .whole = [&](const at::Tensor& rows) { return spread.all_tokens(rows); }},
      {.latents = sampler->begin(draw(schedulers::Draw::kAsFirst)), .first = 0, .draw = draw},
      [](std::int64_t, const at::Tensor&) {});
  const at::Tensor all = spread.all_tokens(latents);
  spread.finish();
  return all;
}

at::Tensor denoise_alone(Run run, const models::Model& model) {
  run.ranks = 1;
  run.parallel = {};
  return denoise(run, model, 0, nullptr);
}

}  // namespace xdit::tests
