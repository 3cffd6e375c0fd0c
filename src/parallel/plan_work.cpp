#include "parallel/plan_work.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "models/flux/tables.h"
#include "models/vae/tables.h"
#include "parallel/plan_parameters.h"
#include "parallel/plan_rows.h"
#include "parallel/plan_weights.h"

namespace xdit::parallel {
namespace {

constexpr double kClipTokens = 77;
constexpr double kPasses = 4;  // over the tokens in a block: norms, rotations, gates

constexpr std::array kParts{&Work::product,  &Work::filling, &Work::attention, &Work::convolution,
                            &Work::elements, &Work::weights, &Work::launches};  // that add up

double real(std::int64_t value) {
  return static_cast<double>(value);
}

// `rows` times a matrix with `weights` elements.
Work product(double weights, double rows) {
  return rows > 0 ? Work{.product = 2 * weights * rows, .filling = 2 * weights * kFillRows} : Work{};
}

// Softmax costs the same for each pair of tokens, however wide their heads are: as much as the products of
// half a head of 128 channels.
double attention(double queries, double keys, double width, double heads) {
  return 4 * queries * keys * width * (1 + 64 * heads / width) / 1.5;
}

models::FluxConfig flux_of(const models::Model& model) {
  const weights::Component& component = model.files.components.at(denoiser_of(model).component);
  return models::read_flux_config(component.config, component.name);
}

// Black Forest Labs' FLUX.1: blocks of two streams, of 12 width^2 weights each, then of one.
Work flux_work(const Plan& plan, const RankPlan& rank, const models::FluxConfig& config, double image) {
  const double width = real(config.width());
  const double parts = real(plan.mesh.tensor);
  const double text = real(rank.text_tokens.count);
  const double all = real(plan.text_tokens + plan.image_tokens);
  const double weights = (4 * width * width + 2 * width * real(config.mlp_width())) / parts;
  const double doubles = real(comm::overlap(rank.blocks, {0, config.double_blocks}).count);
  const double singles = real(rank.blocks.count) - doubles;
  Work work{.attention =
                (doubles + singles) * attention(text + image, all, width / parts, real(config.heads) / parts),
            .elements = kPasses * (doubles + singles) * (text + image) * width,
            .launches = 20 * doubles + 10 * singles};
  work += doubles * product(weights, text);
  work += doubles * product(weights, image);
  work += singles * product(weights, text + image);
  return work;
}

// Networks of convolutions: what a layer at a size does to `share` of its rows.
struct Convolutional {
  double share;
  Work work{};
  std::set<std::tuple<std::int64_t, std::int64_t, double>> shapes{};  // inputs, outputs, pixels

  void convolve(std::int64_t inputs, std::int64_t outputs, double pixels) {
    work.convolution += 18 * share * pixels * real(inputs * outputs);
    shapes.emplace(inputs, outputs, pixels);
    work.weights += 9 * real(inputs * outputs);
    work.launches += 1;
  }
  void multiply(double weights, double pixels) {
    work += product(weights, share * pixels);
    work.weights += weights;
    work.launches += 1;
  }
  // Two norms with their activation, two convolutions, the sum.
  void resnet(std::int64_t inputs, std::int64_t outputs, double pixels) {
    convolve(inputs, outputs, pixels);
    convolve(outputs, outputs, pixels);
    if (inputs != outputs) multiply(real(inputs * outputs), pixels);
    work.elements += share * pixels * real(4 * inputs + 8 * outputs);
    work.launches += 4;
  }
  void attend(double width, double heads, double pixels) {
    multiply(4 * width * width, pixels);
    work.attention += attention(share * pixels, pixels, width, heads);
    work.elements += 6 * share * pixels * width;
  }
  // Podell et al. 2023: attentions to the picture and the prompt, and a gated MLP.
  void transformer(const models::UnetLayer& layer, double pixels) {
    const double width = real(layer.outputs);
    multiply(2 * width * width, pixels);
    work.elements += 6 * share * pixels * width;
    for (std::int64_t i = 0; i < layer.depth; ++i) {
      attend(width, real(layer.heads), pixels);
      multiply(14 * width * width, pixels);
      work.attention += attention(share * pixels, kClipTokens, width, real(layer.heads));
      work.elements += 24 * share * pixels * width;
      work.launches += 12;
    }
  }
  [[nodiscard]] Work done() {
    work.shapes = real(std::ssize(shapes));
    return work;
  }
};

Work unet_work(const models::UnetConfig& config, double rows, double columns, double share) {
  const models::UnetLayout layout = models::unet_layout(config);
  Convolutional unet{.share = share};
  const auto layer = [&](const models::UnetLayer& of, double pixels) {
    unet.resnet(of.inputs, of.outputs, pixels);
    if (!of.transformer.empty()) unet.transformer(of, pixels);
  };
  double pixels = rows * columns;
  unet.convolve(config.in_channels, config.levels.front().channels, pixels);
  for (const models::UnetLayer& of : layout.down) {
    layer(of, pixels);
    if (of.resample.empty()) continue;
    pixels /= 4;
    unet.convolve(of.outputs, of.outputs, pixels);
  }
  for (const models::UnetLayer& of : layout.middle) layer(of, pixels);
  for (const models::UnetLayer& of : layout.up) {
    layer(of, pixels);
    if (of.resample.empty()) continue;
    pixels *= 4;
    unet.convolve(of.outputs, of.outputs, pixels);
  }
  unet.convolve(config.levels.front().channels, config.out_channels, pixels);
  return unet.done();
}

Work vae_work(const models::VaeConfig& config, double pixels, double share) {
  Convolutional vae{.share = share};
  std::int64_t width = config.channels.back();
  vae.convolve(config.latent_channels, width, pixels);
  for (int i = 0; i < 2; ++i) vae.resnet(width, width, pixels);
  if (config.mid_attention) vae.attend(real(width), 1, pixels);
  for (std::size_t level = config.channels.size(); level-- > 0;) {
    const std::int64_t channels = config.channels[level];
    for (std::int64_t i = 0; i < config.resnets; ++i)
      vae.resnet(std::exchange(width, channels), channels, pixels);
    if (level == 0) break;
    pixels *= 4;
    vae.convolve(channels, channels, pixels);
  }
  vae.convolve(width, config.out_channels, pixels);
  return vae.done();
}

// A rank that computes K/V, or heads, of its own tokens gets those of the others.
Traffic flux_traffic(const Plan& plan, const RankPlan& rank, const models::Model& model) {
  const Mesh& mesh = plan.mesh;
  const double width = real(model.shape.width);
  const double all = real(plan.text_tokens + plan.image_tokens);
  const double blocks = real(rank.blocks.count);
  const auto ulysses = real(mesh.ulysses);
  const auto tokens = real(mesh.ring * mesh.gather);  // parts of each head's
  const auto tensor = real(mesh.tensor);
  Traffic traffic;
  const double heads = 4 * all / tokens * width / tensor * (ulysses - 1) / (ulysses * ulysses);
  const double keys = 2 * all * width / tensor / ulysses * (tokens - 1) / tokens;
  const double sums = 4 * all / (tokens * ulysses) * width * (tensor - 1) / tensor;
  // In blocks of one stream all but attention's result travels while the MLP's product is computed.
  const double singles = blocks - real(comm::overlap(rank.blocks, {0, flux_of(model).double_blocks}).count);
  traffic.ahead = mesh.ring > 1 ? 0 : singles * (heads * 3 / 4 + keys);
  traffic.elements = blocks * (heads + keys + sums) - traffic.ahead;
  traffic.exchanges =
      blocks * ((ulysses > 1 ? 2 : 0) + (tokens > 1 ? real(mesh.ring > 1 ? mesh.ring - 1 : 1) : 0) +
                (tensor > 1 ? 4 : 0));
  if (mesh.pipefusion > 1) {
    traffic.elements += all / (tokens * ulysses) * width;
    traffic.exchanges += real(mesh.pipefusion);
  }
  return traffic;
}

Traffic unet_traffic(const Plan& plan, const models::Model& model) {
  Traffic traffic;
  const auto parts = real(plan.mesh.gather);
  if (plan.mesh.gather == 1) return traffic;
  const auto exchanges =
      row_exchanges(unet_of(model), plan.image_tokens / plan.image_columns, plan.image_columns, 1);
  for (const auto& [kind, elements] : exchanges)
    traffic.elements += kind == RowKind::kHalo ? real(elements) : real(elements) * (parts - 1) / parts;
  traffic.exchanges = plan.displaced ? 1 : real(std::ssize(exchanges));
  return traffic;
}

}  // namespace

Work& Work::operator+=(const Work& other) {
  for (double Work::*part : kParts) this->*part += other.*part;
  shapes = std::max(shapes, other.shapes);
  return *this;
}

Work operator*(double times, Work work) {
  for (double Work::*part : kParts) work.*part *= times;
  return work;
}

Work denoiser_work(const Plan& plan, const RankPlan& rank, const models::Model& model, Range image) {
  if (!model.shape.by_rows) return flux_work(plan, rank, flux_of(model), real(image.count));
  Work work = unet_work(unet_of(model), real(plan.image_tokens / plan.image_columns),
                        real(plan.image_columns), real(image.count) / real(plan.image_tokens));
  work.weights = 0;  // those of linears are in what filling costs
  return work;
}

Work decoder_work(const Plan& plan, const RankPlan& rank, const models::Model& model) {
  const auto network = std::find_if(model.networks.begin(), model.networks.end(),
                                    [](const auto& n) { return n.role == models::Role::kDecoder; });
  const weights::Component& component = model.files.components.at(network->component);
  const std::int64_t side = model.shape.pixels_per_token / model.shape.latent_scale;
  const double pixels = real(plan.image_tokens * side * side);
  const double rows = real(plan.image_tokens / plan.image_columns * side);
  return vae_work(models::read_vae_config(component.config, component.name), pixels,
                  real(rank.latent_rows.count) / rows);
}

Work encoder_work(const config::RunSpec& spec, const models::Model& model) {
  Work work;
  for (const models::TextEncoder& encoder : model.text_encoders) {
    const bool long_prompt = encoder.ids == "t5_ids";
    const double tokens = long_prompt ? real(spec.sampling.max_sequence_length) : kClipTokens;
    double weights = 0;
    for (const weights::Parameter& parameter : network_of(model, encoder.component).parameters)
      if (parameter.shape.size() == 2 && parameter.name.find("embed") == std::string::npos &&
          parameter.name.find("shared") == std::string::npos)
        weights += real(std::reduce(parameter.shape.begin(), parameter.shape.end(), std::int64_t{1},
                                    std::multiplies<>()));
    work += product(weights, tokens);
    work.launches += 400;
  }
  return work;
}

Traffic denoiser_traffic(const Plan& plan, const RankPlan& rank, const models::Model& model) {
  Traffic traffic = model.shape.by_rows ? unet_traffic(plan, model) : flux_traffic(plan, rank, model);
  if (plan.mesh.cfg > 1) {  // the other branch's prediction
    traffic.elements += real(plan.image_tokens) * real(model.shape.token_channels);
    traffic.exchanges += 1;
  }
  if (rank.sharding.size() > 1) {
    const std::vector<std::int64_t> costs = block_costs(model);
    const auto first = costs.begin() + rank.blocks.first;
    const auto parts = real(std::ssize(rank.sharding));
    traffic.ahead +=
        real(std::reduce(first, first + rank.blocks.count)) / real(plan.mesh.tensor) * (parts - 1) / parts;
  }
  return traffic;
}

double prompt_traffic(const Plan& plan, const RankPlan& rank, const models::Model& model) {
  const auto parts = real(std::ssize(rank.sharding));
  double elements = 0;
  for (const HeldParameter& held : held_by(plan, rank, denoiser_of(model)))
    if (held.piece_rows > 0) elements += real(held.elements());
  return elements * (parts - 1) / parts;
}

}  // namespace xdit::parallel
