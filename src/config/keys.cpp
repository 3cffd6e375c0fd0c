#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "config/samplers.h"
#include "config/settings.h"
#include "config/values.h"

namespace xdit::config {
namespace {

using R = RunSpec;

// Texts become valid UTF-8: a command line may hold any bytes.
void set_prompts(RunSpec& spec, const Setting& setting, const Key& key) {
  read(key, setting, spec.prompts);
  for (std::string& prompt : spec.prompts) prompt = valid_utf8(prompt);
}

void set_negative_prompt(RunSpec& spec, const Setting& setting, const Key& key) {
  read(key, setting, spec.negative_prompt);
  if (spec.negative_prompt) spec.negative_prompt = valid_utf8(*spec.negative_prompt);
}

void set_scheduler(RunSpec& spec, const Setting& setting, const Key& key) {
  Setting canonical = setting;
  for (std::string& value : canonical.values) {
    const std::optional<SpelledSampler> found = find_sampler(value);
    if (!found) continue;
    value = found->name;
    if (!found->sigmas.empty()) spec.sampling.sigmas = found->sigmas;
  }
  read(key, canonical, spec.sampling.scheduler);
}

// ComfyUI's ddim_uniform counts down from the last trained timestep in whole strides, as "leading", but as
// often as they fit.
void set_sigmas(RunSpec& spec, const Setting& setting, const Key& key) {
  Setting canonical = setting;
  for (std::string& value : canonical.values) {
    if (value == "ddim_uniform")
      throw Error(setting.code,
                  fmt::format("{}: ddim_uniform takes other numbers of steps than asked for", key.path),
                  setting.where, "--set sampling.timestep_spacing=leading");
    if (const auto found = find_sigmas(value)) value = *found;
  }
  read(key, canonical, spec.sampling.sigmas);
}

// A row whose value lives at `Path` in the RunSpec. `flags`: the long flag and its aliases.
template <auto... Path>
constexpr Key row(std::string_view path, std::string_view flags, std::string_view type,
                  std::string_view allowed, std::string_view meaning, decltype(Key::set) set = nullptr) {
  const std::size_t end = std::min(flags.find(' '), flags.size());
  const auto plain_set = [](RunSpec& spec, const Setting& setting, const Key& key) {
    read(key, setting, (spec.*....*Path));
  };
  const auto print_value = [](const RunSpec& spec, const Key& key) { return print(key, (spec.*....*Path)); };
  return {.path = path,
          .flag = flags.substr(0, end),
          .aliases = flags.substr(std::min(end + 1, flags.size())),
          .type = type,
          .allowed = allowed,
          .meaning = meaning,
          .list = type == kTexts || type == kSeeds,
          .set = set != nullptr ? set : plain_set,
          .print = print_value};
}

constexpr std::string_view kSizes = "16..16384";
constexpr std::string_view kExtents = "0..16384";
constexpr std::string_view kDegrees = "1..1024";

constexpr std::array kKeys{
    row<&R::model, &R::Model::path>(
        "model.path", "--model -m", kText, "",
        "diffusers folder, .safetensors file, or owner/name in the Hugging Face cache"),
    row<&R::model, &R::Model::base>("model.base", "--base", kText, "",
                                    "folder with the components that a single file lacks"),
    row<&R::model, &R::Model::tokenizers>("model.tokenizers", "--tokenizers", kText, "",
                                          "folder with tokenizer/ and tokenizer_2/"),
    row<&R::model, &R::Model::refiner>("model.refiner", "--refiner", kText, "",
                                       "SDXL's second stage: as --model"),
    row<&R::model, &R::Model::dtype>("model.dtype", "--dtype", kChoice, "bf16|fp16|fp32",
                                     "precision of the run"),
    row<&R::model, &R::Model::load_format>("model.load_format", "--load-format", kChoice, "auto|dummy",
                                           "dummy: random weights for a built-in model name, no files"),
    row<&R::model, &R::Model::quantize>("model.quantize", "--quantize", kChoice, "none|fp8",
                                        "fp8: FLUX's blocks in 8 bits (Hopper); faster, less exact"),
    row<&R::prompts>("prompt", "--prompt -p", kTexts, "",
                     "what to draw; repeat it for several, - reads stdin", set_prompts),
    row<&R::negative_prompt>("negative_prompt", "--negative-prompt -n", kText, "",
                             "what to keep out; needs --cfg-scale > 1", set_negative_prompt),
    row<&R::image, &R::Image::width>("image.width", "--width -W", kSize, kSizes, "pixels"),
    row<&R::image, &R::Image::height>("image.height", "--height -H", kSize, kSizes, "pixels"),
    row<&R::image, &R::Image::count>("image.count", "--count", kInteger, "1..10000",
                                     "pictures a prompt and seed; picture i takes seed + i"),
    row<&R::sampling, &R::Sampling::scheduler>("sampling.scheduler", "--scheduler", kChoice,
                                               "flow-match-euler|flow-match-heun|euler|euler-ancestral|heun|"
                                               "dpm++-2m|dpm++-2m-sde|dpm++-2s-ancestral|"
                                               "dpm-2|ddim|ddpm|pndm|lms|unipc|lcm",
                                               "sampler; diffusers, A1111 and ComfyUI names are known",
                                               set_scheduler),
    row<&R::sampling, &R::Sampling::sigmas>("sampling.sigmas", "--sigmas", kChoice, kAllSigmas,
                                            "spacing of the noise levels", set_sigmas),
    row<&R::sampling, &R::Sampling::timestep_spacing>("sampling.timestep_spacing", "", kChoice,
                                                      "auto|linspace|leading|trailing",
                                                      "spacing of the steps' times; auto: the model's"),
    row<&R::sampling, &R::Sampling::prediction>("sampling.prediction", "", kChoice,
                                                "auto|epsilon|v-prediction",
                                                "what the model predicts; auto: as its scheduler says"),
    row<&R::sampling, &R::Sampling::steps>("sampling.steps", "--steps --num-inference-steps", kInteger,
                                           "1..1000", "denoising steps"),
    row<&R::sampling, &R::Sampling::guidance>("sampling.guidance", "--guidance --guidance-scale", kNumber,
                                              "0..100",
                                              "guidance that the model embeds; SDXL's and SD's cfg_scale"),
    row<&R::sampling, &R::Sampling::cfg_scale>("sampling.cfg_scale", "--cfg-scale --true-cfg-scale", kNumber,
                                               "0..100", "classifier-free guidance; off unless > 1"),
    row<&R::sampling, &R::Sampling::guidance_rescale>(
        "sampling.guidance_rescale", "", kAutoNumber, "0..1",
        "how far guidance keeps the contrast of the prompt's own; auto: not"),
    row<&R::sampling, &R::Sampling::shift>("sampling.shift", "", kAutoNumber, "0.01..100",
                                           "fixed time shift; auto: the model's"),
    row<&R::sampling, &R::Sampling::seeds>("sampling.seed", "--seed -s", kSeeds,
                                           "(7, 1-4, 1-4,9) up to 18446744073709551615, or -1",
                                           "seeds and ranges: 7, 1-4, 1-4,9; -1 draws one"),
    row<&R::sampling, &R::Sampling::rng_dtype>("sampling.rng_dtype", "--rng-dtype", kChoice,
                                               "auto|fp32|bf16|fp16",
                                               "dtype that noise is drawn in; auto: as diffusers"),
    row<&R::sampling, &R::Sampling::max_sequence_length>("sampling.max_sequence_length", "", kInteger,
                                                         "1..512", "T5 tokens of a prompt"),
    row<&R::sampling, &R::Sampling::original_size>("sampling.original_size", "", kExtent, kExtents,
                                                   "what SDXL is told of the picture's size before cropping"),
    row<&R::sampling, &R::Sampling::crop>("sampling.crop", "", kExtent, kExtents,
                                          "and of the pixels cut off, left x top; auto: none"),
    row<&R::sampling, &R::Sampling::target_size>("sampling.target_size", "", kExtent, kExtents,
                                                 "and of its final size; auto: the picture's"),
    row<&R::sampling, &R::Sampling::refiner_start>("sampling.refiner_start", "", kNumber, "0..1",
                                                   "how far down the noise the refiner takes over"),
    row<&R::sampling, &R::Sampling::aesthetic_score>("sampling.aesthetic_score", "", kNumber, "0..10",
                                                     "what the refiner is told of the picture"),
    row<&R::sampling, &R::Sampling::negative_aesthetic_score>(
        "sampling.negative_aesthetic_score", "", kNumber, "0..10", "and beside the negative prompt"),
    row<&R::parallel, &R::Parallel::gpus>(
        "parallel.gpus", "--gpus", kDevices,
        "all, a count, or a list with a comma (0,1 or 1,), also of UUIDs (GPU-...)",
        "all, a count, or a list with a comma: 0,1 or UUIDs"),
    row<&R::parallel, &R::Parallel::data>("parallel.data", "--data", kAutoInteger, kDegrees,
                                          "degree over pictures"),
    row<&R::parallel, &R::Parallel::cfg>("parallel.cfg", "--cfg-parallel", kAutoInteger, "1..2",
                                         "degree over the two prompt branches"),
    row<&R::parallel, &R::Parallel::pipefusion>("parallel.pipefusion", "--pipefusion", kAutoInteger, kDegrees,
                                                "degree over blocks"),
    row<&R::parallel, &R::Parallel::pipefusion_warmup>(
        "parallel.pipefusion_warmup", "--pipefusion-warmup", kInteger, "1..1000",
        "steps before its stages work on bands; all of them: exact"),
    row<&R::parallel, &R::Parallel::ulysses>("parallel.ulysses", "--ulysses", kAutoInteger, kDegrees,
                                             "degree over heads in attention"),
    row<&R::parallel, &R::Parallel::ring>("parallel.ring", "--ring", kAutoInteger, kDegrees,
                                          "degree of ring attention"),
    row<&R::parallel, &R::Parallel::gather>("parallel.gather", "--gather", kAutoInteger, kDegrees,
                                            "degree of gathered K and V"),
    row<&R::parallel, &R::Parallel::tensor>("parallel.tensor", "--tensor", kAutoInteger, kDegrees,
                                            "degree of tensor parallelism"),
    row<&R::parallel, &R::Parallel::patch>("parallel.patch", "--patch", kChoice, "exact|displaced",
                                           "displaced: a UNet's rows use the others' of the step before"),
    row<&R::parallel, &R::Parallel::patch_warmup>("parallel.patch_warmup", "--patch-warmup", kInteger,
                                                  "1..1000",
                                                  "steps before rows are displaced; all of them: exact"),
    row<&R::parallel, &R::Parallel::shard_weights>("parallel.shard_weights", "--shard-weights", kChoice,
                                                   "auto|true|false",
                                                   "each rank keeps a share of the weights"),
    row<&R::parallel, &R::Parallel::vae>("parallel.vae", "--vae-parallel", kAutoInteger, kDegrees,
                                         "degree of decoding in row slabs"),
    row<&R::parallel, &R::Parallel::allow>("parallel.allow", "--allow", kChoice, "exact|rounding|approximate",
                                           "what a grid that is chosen may do to the picture"),
    row<&R::output, &R::Output::path>("output.path", "--output -o", kText, "",
                                      "template: {seed} {index} {prompt} {date} or %03d"),
    row<&R::output, &R::Output::metadata>("output.metadata", "--metadata", kBoolean, "true|false",
                                          "settings as text in the PNG"),
    row<&R::output, &R::Output::overwrite>("output.overwrite", "--overwrite", kBoolean, "true|false",
                                           "replace files that exist"),
    row<&R::output, &R::Output::report>("output.report", "--report", kText, "",
                                        "JSON file: seconds of each phase, peak memory"),
    row<&R::output, &R::Output::trace>("output.trace", "--trace", kText, "",
                                       "safetensors file: what the run computed, in float32"),
    row<&R::output, &R::Output::preview>("output.preview", "--preview", kInteger, "0..1000",
                                         "a small picture of the latents every so many steps; 0: none"),
    row<&R::output, &R::Output::preview_path>("output.preview_path", "--preview-path", kText, "",
                                              "its template; without it x.preview.png beside x.png"),
    row<&R::runtime, &R::Runtime::device>("runtime.device", "--device", kChoice, "cuda|cpu",
                                          "where to compute"),
    row<&R::runtime, &R::Runtime::transport>("runtime.transport", "--transport", kChoice, "auto|peer|host",
                                             "peer: the GPUs' memory; host: where they do not reach it"),
    row<&R::runtime, &R::Runtime::timeout_s>("runtime.timeout", "", kDuration, "(60s, 10m, 500ms) up to 24h",
                                             "silence after which a rank counts as hung"),
    row<&R::runtime, &R::Runtime::deterministic>("runtime.deterministic", "", kBoolean, "true|false",
                                                 "same run, same bytes"),
    row<&R::runtime, &R::Runtime::cuda_graphs>("runtime.cuda_graphs", "", kBoolean, "true|false",
                                               "steps as CUDA graphs: same bytes, one launch"),
    row<&R::runtime, &R::Runtime::warm_up>("runtime.warm_up", "", kChoice, "auto|true|false",
                                           "a forward while weights are read: a faster first step"),
};

}  // namespace

std::span<const Key> keys() {
  return kKeys;
}

const Key* find_key(std::string_view path) {
  const auto found =
      std::find_if(kKeys.begin(), kKeys.end(), [&](const Key& key) { return key.path == path; });
  return found == kKeys.end() ? nullptr : &*found;
}

}  // namespace xdit::config
