#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "config/run_spec.h"
#include "models/denoiser.h"
#include "models/registry.h"
#include "nn/weights.h"

namespace xdit::pipeline {

/// A text and the side of classifier-free guidance that it is for.
struct Prompt {
  std::string text;
  bool negative = false;
  bool absent = false;  ///< "" for want of a negative prompt
  friend bool operator<(const Prompt& a, const Prompt& b) {
    return std::tie(a.text, a.negative, a.absent) < std::tie(b.text, b.negative, b.absent);
  }
};
[[nodiscard]] inline Prompt negative_of(const config::RunSpec& spec) {
  return {.text = spec.negative_prompt.value_or(""), .negative = true, .absent = !spec.negative_prompt};
}

/// A prompt's ids for each of the model's text encoders.
using PromptIds = std::vector<std::vector<std::int64_t>>;

/// What a model that embeds sizes is told beside a prompt: original size, crop and final size, each height
/// first; a refiner takes an aesthetic score in place of the last.
[[nodiscard]] std::vector<double> size_ids(const config::RunSpec& spec, const models::Model& model,
                                           bool negative);

/// Tokenises the prompts with the model's own tokenizers, padded and cut as diffusers' pipelines do; `warn`
/// gets a line for each end that was cut off. A drawn model without tokenizers takes bytes for ids.
[[nodiscard]] std::map<Prompt, PromptIds> tokenise(const models::Model& model,
                                                   const std::set<Prompt>& prompts, std::int64_t t5_length,
                                                   const std::function<void(std::string_view)>& warn);

/// Zeros of an embedding's shape.
[[nodiscard]] models::PromptEmbedding blank_embedding(const models::Model& model, std::int64_t t5_length,
                                                      const at::TensorOptions& options);

/// Weights of the model's text encoders, by component.
using EncoderWeights = std::map<std::string, std::unique_ptr<nn::Weights>>;

/// Encodes them: what the denoiser takes of each encoder.
[[nodiscard]] std::map<Prompt, models::PromptEmbedding> encode(const models::Model& model,
                                                               const EncoderWeights& weights,
                                                               const std::map<Prompt, PromptIds>& prompts,
                                                               at::Device device);

}  // namespace xdit::pipeline
