#include "parallel/plan_predict.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "config/samplers.h"
#include "parallel/plan_weights.h"
#include "parallel/plan_work.h"

namespace xdit::parallel {
namespace {

// Seconds on an H100 and its host that no rate tells.
constexpr double kStart = 0.5;   // a process with LibTorch and CUDA
constexpr double kMeet = 0.4;    // ranks find each other
constexpr double kDraw = 0.4;    // weights in place of files
constexpr double kWarmUp = 1.8;  // of kernels: 0.8 - 2.1, by what the page cache holds of libraries
constexpr double kFinish = 0.17;
constexpr double kFirstKernels = 0.1;      // the driver loads what is called for the first time
constexpr double kConvolutionPlan = 5e-3;  // cuDNN's for one shape, and the one for a single row
constexpr double kWiderPlan = 0.04;        // of factors in float16 and results in float32
constexpr double kCapture = 0.03;          // of a forward as a CUDA graph
constexpr double kLaunch = 1.5e-6;         // between two kernels
constexpr double kExchange = 1e-5;         // signals and their kernels
constexpr double kRounded = 5.5;    // a decoder's factors to 11 bits, that is how much faster than in float32
constexpr double kEightBits = 1.8;  // products in e4m3, that is how much faster than in bf16
constexpr double kReaders = 2;      // ranks that together read as fast as the host can
constexpr double kWriteMegapixel = 0.05;

const models::Network& decoder_of(const models::Model& model) {
  return *std::find_if(model.networks.begin(), model.networks.end(),
                       [](const auto& n) { return n.role == models::Role::kDecoder; });
}

struct Predictor {
  const Plan& plan;
  const models::Model& model;
  const config::RunSpec& spec;
  Rates rates;
  double disk;                      // bytes a second for all ranks; 0: files are in the page cache
  std::vector<double> evaluations;  // that are the model's, by place of the picture

  [[nodiscard]] double seconds(const Work& work, DType dtype) const {
    const auto size = static_cast<double>(size_of(dtype));
    const bool whole = dtype == DType::kF32;
    const double operations =
        whole ? (work.product + work.filling + work.attention + work.convolution) / rates.float32
              : (work.product + work.filling) / rates.product + work.attention / rates.attention +
                    work.convolution / rates.convolution;
    return operations + (work.elements + work.weights) * size / rates.memory + work.launches * kLaunch;
  }
  // Branches are one batch: twice the work of as many launches.
  [[nodiscard]] double forward(Work work) const {
    if (plan.quantised) {
      work.product /= kEightBits;
      work.filling /= kEightBits;
    }
    if (branches() == 1) return seconds(work, spec.model.dtype);
    Work both = branches() * work;
    if (plan.joins_branches) {
      both.filling = work.filling;
      both.launches = work.launches;
    }
    return seconds(both, spec.model.dtype);
  }
  [[nodiscard]] double branches() const { return spec.sampling.cfg_scale > 1 && plan.mesh.cfg == 1 ? 2 : 1; }
  [[nodiscard]] double between_ranks() const {
    return plan.transport == config::Transport::kPeer ? rates.peer : rates.host / 2;  // down and up again
  }
  // Ranks on one device take turns.
  [[nodiscard]] double turns(const RankPlan& rank) const {
    return static_cast<double>(std::count_if(
        plan.ranks.begin(), plan.ranks.end(),
        [&](const RankPlan& other) { return other.device == rank.device && other.pictures.count > 0; }));
  }

  // A step in which stages, if there are several, wait for the longest band.
  [[nodiscard]] double step(const RankPlan& rank) const {
    double all = 0;
    double longest = 0;
    for (const Range& band : rank.image_tokens) {
      const double band_s = forward(denoiser_work(plan, rank, model, band));
      all += band_s;
      longest = std::max(longest, band_s);
    }
    const double compute = std::max(all, longest * static_cast<double>(plan.mesh.pipefusion)) * turns(rank);
    const Traffic traffic = denoiser_traffic(plan, rank, model);
    const double arrive =
        branches() * (bytes(traffic.elements) / between_ranks() + traffic.exchanges * kExchange);
    const double ahead = branches() * bytes(traffic.ahead) / between_ranks();
    return plan.displaced ? std::max(compute, arrive + ahead) : std::max(compute, ahead) + arrive;
  }
  [[nodiscard]] double bytes(double elements) const {
    return elements * static_cast<double>(size_of(spec.model.dtype));
  }
  // Whole pictures go through the stages one after the other.
  [[nodiscard]] double warmup(double step_s) const {
    return plan.mesh.pipefusion > 1 ? static_cast<double>(plan.warmup * (plan.mesh.pipefusion - 1)) * step_s
                                    : 0;
  }
  // Pieces of weights, once for each of the rank's prompts.
  [[nodiscard]] double prepare(const RankPlan& rank) const {
    const double of_a_picture = spec.sampling.cfg_scale > 1 ? 2 : 1;
    const double mine = std::min(prompts(), of_a_picture * static_cast<double>(rank.pictures.count));
    return mine * bytes(prompt_traffic(plan, rank, model)) / between_ranks();
  }
  [[nodiscard]] double first_step(const RankPlan& rank) const {
    const Work work = denoiser_work(plan, rank, model, rank.image_tokens.front());
    const double graphs = plan.replays ? (plan.joins_branches ? 1 : branches()) * kCapture : 0;
    return (plan.warms_up ? 0 : kFirstKernels + work.shapes * kConvolutionPlan) + graphs;
  }

  [[nodiscard]] double decode(const RankPlan& rank) const {
    if (rank.latent_rows.count == 0) return 0;
    const auto pictures = static_cast<double>(rank.pictures.count);
    const DType dtype = decoder_of(model).dtype(spec.model.dtype);
    const Work work = decoder_work(plan, rank, model);
    const bool rounds = dtype == DType::kF32 && spec.model.dtype != DType::kF32;
    return pictures * turns(rank) * seconds(work, dtype) / (rounds ? kRounded : 1) +
           (plan.warms_up || (dtype == DType::kF32 && !rounds)
                ? 0
                : work.shapes * (rounds ? kWiderPlan : kConvolutionPlan));
  }

  // Of the slowest rank; together they read no faster than the host.
  [[nodiscard]] double load() const {
    double most = 0;
    double all = 0;
    for (const RankPlan& rank : plan.ranks) {
      double read = 0;
      double others = 0;
      for (const auto& [name, held] : rank.networks) {
        const auto file = static_cast<double>(held.file);
        read += file;
        // What will be quantised is exchanged as it was read.
        const double exchanged = static_cast<double>(held.memory) + static_cast<double>(held.unquantised) / 2;
        if (file > 0) others += std::max(0.0, exchanged - file);
      }
      all += read;
      most = std::max(most, read / rates.read + (plan.exchanges() ? others / between_ranks() : 0));
    }
    const double together = kReaders * rates.read;
    return std::max(most, all / (disk > 0 ? std::min(together, disk) : together));
  }
  [[nodiscard]] double prompts() const {
    std::set<std::string> texts;
    for (const config::Picture& picture : config::pictures(spec)) texts.insert(picture.prompt);
    std::set<std::optional<std::string>> negative;
    if (spec.sampling.cfg_scale > 1)
      for (const config::RunSpec& variant : config::variants_of(spec))
        negative.insert(variant.negative_prompt);
    return static_cast<double>(texts.size() + negative.size());
  }
  [[nodiscard]] double evaluations_of(const RankPlan& rank) const {
    const auto first = evaluations.begin() + rank.pictures.first;
    return std::accumulate(first, first + rank.pictures.count, 0.0);
  }
};

Prediction predicted(const Predictor& of) {
  const Plan& plan = of.plan;
  const config::RunSpec& spec = of.spec;
  Prediction prediction{.start_s = kStart + (plan.exchanges() ? kMeet : 0),
                        .load_s = of.model.dummy ? kDraw : of.load(),
                        .encode_s = of.prompts() * of.seconds(encoder_work(spec, of.model), spec.model.dtype),
                        .finish_s = kFinish,
                        .exchanged = {}};
  if (plan.warms_up) prediction.warm_up_s = std::max(0.0, kWarmUp - prediction.load_s);
  for (const RankPlan& rank : plan.ranks) {
    const Traffic traffic = denoiser_traffic(plan, rank, of.model);
    const bool works = rank.pictures.count > 0;
    prediction.exchanged.push_back(
        static_cast<std::uint64_t>(works ? of.branches() * of.bytes(traffic.elements + traffic.ahead) : 0));
    if (!works) continue;
    const auto pictures = static_cast<double>(rank.pictures.count);
    const double step = of.step(rank);
    prediction.step_s = std::max(prediction.step_s, step);
    prediction.denoise_s =
        std::max(prediction.denoise_s, of.evaluations_of(rank) * step + pictures * of.warmup(step) +
                                           of.first_step(rank) + of.prepare(rank));
    prediction.decode_s = std::max(prediction.decode_s, of.decode(rank));
    if (rank.latent_rows.count == 0) continue;
    const double pixels = static_cast<double>(spec.image.width * spec.image.height) * 1e-6;
    prediction.write_s = std::max(prediction.write_s, pictures * pixels * kWriteMegapixel);
  }
  return prediction;
}

// Of the samplers, by place; with `share` of a variant: those that it is of.
std::vector<double> evaluations_of(
    const Plan& plan, const config::RunSpec& spec,
    const std::function<double(const config::RunSpec& of, double all)>& share) {
  std::vector<double> by_variant;
  for (const config::RunSpec& of : config::variants_of(spec)) {
    const std::int64_t all = config::sampler_named(of.sampling.scheduler)->evaluations(of.sampling.steps);
    by_variant.push_back(share(of, static_cast<double>(all)));
  }
  const std::vector<config::Picture> pictures = config::pictures(spec);
  std::vector<double> by_place;
  for (const std::size_t picture : dealt_out(plan))
    by_place.push_back(by_variant.at(pictures.at(picture).variant));
  return by_place;
}

}  // namespace

Plan without_decoding(Plan plan, const models::Model& model) {
  for (RankPlan& rank : plan.ranks) {
    rank.networks.erase(decoder_of(model).component);
    rank.latent_rows = {};
  }
  return plan;
}

std::optional<Prediction> predict(const Plan& plan, const models::Model& model, const Machine& machine,
                                  const config::RunSpec& spec, const models::Model* refiner) {
  const std::optional<Rates> rates = rates_of(machine);
  if (!rates || spec.runtime.device == config::Device::kCpu) return std::nullopt;
  const double disk = machine.measured.read;
  const auto whole = [](const config::RunSpec& /*of*/, double all) { return all; };
  if (refiner == nullptr)
    return predicted({plan, model, spec, *rates, disk, evaluations_of(plan, spec, whole)});
  const auto begun = [](const config::RunSpec& of, double all) {  // as of evenly spaced noise levels
    return std::nearbyint(of.sampling.refiner_start * all);
  };
  const auto ended = [&](const config::RunSpec& of, double all) { return all - begun(of, all); };
  const Plan begins = without_decoding(plan, model);
  const Plan ends = make_plan(with_degrees(spec, plan.mesh), *refiner, machine);
  const Predictor first{begins, model, spec, *rates, disk, evaluations_of(plan, spec, begun)};
  const Predictor last{ends, *refiner, spec, *rates, disk, evaluations_of(plan, spec, ended)};
  Prediction both = predicted(first);
  const Prediction second = predicted(last);
  both.load_s += second.load_s;
  both.warm_up_s = std::max(both.warm_up_s, second.warm_up_s);
  both.encode_s += second.encode_s;
  both.denoise_s += second.denoise_s;
  both.decode_s = second.decode_s;
  both.write_s = second.write_s;
  const auto sum = [](const std::vector<double>& all) { return std::reduce(all.begin(), all.end()); };
  const double begun_all = sum(first.evaluations), ended_all = sum(last.evaluations);
  both.step_s = (begun_all * both.step_s + ended_all * second.step_s) / (begun_all + ended_all);
  for (std::size_t rank = 0; rank < both.exchanged.size(); ++rank)
    both.exchanged[rank] = std::max(both.exchanged[rank], second.exchanged[rank]);
  return both;
}

}  // namespace xdit::parallel
