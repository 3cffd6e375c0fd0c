#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "models/denoiser.h"
#include "models/registry.h"
#include "nn/weights.h"

namespace xdit::pipeline {

/// A prompt's ids for each encoder.
struct PromptIds {
  std::vector<std::int64_t> clip;  ///< [77]
  std::vector<std::int64_t> t5;    ///< [S]
};

/// Tokenises the prompts with the model's own tokenizers, padded and cut as diffusers' FluxPipeline does;
/// `warn` gets a line for each end that was cut off. A drawn model without tokenizers takes bytes for ids.
[[nodiscard]] std::map<std::string, PromptIds> tokenise(const models::Model& model,
                                                        const std::vector<std::string>& prompts,
                                                        std::int64_t t5_length,
                                                        const std::function<void(std::string_view)>& warn);

/// Encodes them: CLIP's pooled embedding and T5's token embeddings.
[[nodiscard]] std::map<std::string, models::PromptEmbedding> encode(
    const models::Model& model, const nn::Weights& clip, const nn::Weights& t5,
    const std::map<std::string, PromptIds>& prompts, at::Device device);

}  // namespace xdit::pipeline
