#include "pipeline/prompts.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "nn/weights.h"
#include "text/clip_encoder.h"
#include "text/t5_encoder.h"
#include "text/tokenizer/tokenizer.h"

namespace xdit::pipeline {
namespace {

text::ClipConfig clip_config(const models::Model& model) {
  return text::read_clip_config(model.files.components.at("text_encoder").config, "text_encoder/config.json");
}

text::T5Config t5_config(const models::Model& model) {
  return text::read_t5_config(model.files.components.at("text_encoder_2").config,
                              "text_encoder_2/config.json");
}

// For models without files: as many ids as a tokenizer would give, and the same ones for the same prompt.
std::vector<std::int64_t> byte_ids(const std::string& prompt, std::int64_t length, std::int64_t vocabulary) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(length), 0);
  for (std::size_t i = 0; i < std::min(prompt.size(), ids.size()); ++i)
    ids[i] = (static_cast<unsigned char>(prompt[i]) + 3) % vocabulary;
  ids.back() = vocabulary - 1;
  return ids;
}

void check_vocabulary(const text::Tokenizer& tokenizer, std::int64_t embeddings, const char* name) {
  if (tokenizer.vocabulary_size() > embeddings)
    throw Error(ExitCode::kModel, fmt::format("{} has {} pieces, but its encoder embeds {}", name,
                                              tokenizer.vocabulary_size(), embeddings));
}

at::Tensor on(const std::vector<std::int64_t>& ids, at::Device device) {
  return at::tensor(at::ArrayRef<std::int64_t>(ids), at::kLong).to(device);
}

}  // namespace

std::map<std::string, PromptIds> tokenise(const models::Model& model, const std::vector<std::string>& prompts,
                                          std::int64_t t5_length,
                                          const std::function<void(std::string_view)>& warn) {
  const text::ClipConfig clip = clip_config(model);
  const text::T5Config t5 = t5_config(model);
  const auto& folders = model.files.tokenizers;
  std::map<std::string, PromptIds> ids;
  if (model.dummy && !folders.contains("tokenizer")) {
    for (const std::string& prompt : prompts)
      ids[prompt] = {byte_ids(prompt, clip.positions, clip.vocabulary),
                     byte_ids(prompt, t5_length, t5.vocabulary)};
    return ids;
  }
  for (const char* name : {"tokenizer", "tokenizer_2"})
    if (!folders.contains(name))
      throw Error(ExitCode::kModel, fmt::format("no folder {}", name), model.files.path.string(),
                  "--tokenizers DIR, a folder with tokenizer/ and tokenizer_2/");
  const auto clip_tokenizer = text::open_clip_tokenizer(folders.at("tokenizer"));
  const auto t5_tokenizer = text::open_t5_tokenizer(folders.at("tokenizer_2"));
  check_vocabulary(*clip_tokenizer, clip.vocabulary, "tokenizer");
  check_vocabulary(*t5_tokenizer, t5.vocabulary, "tokenizer_2");
  for (const std::string& prompt : prompts) {
    text::TokenIds first = clip_tokenizer->encode(prompt, clip.positions);
    text::TokenIds second = t5_tokenizer->encode(prompt, t5_length);
    if (!second.cut.empty())
      warn(fmt::format(
          "the prompt is longer than {} T5 tokens (--set sampling.max_sequence_length); cut off: {}",
          t5_length, second.cut));
    if (!first.cut.empty())
      warn(fmt::format("CLIP, which sets the overall style, reads {} tokens; it does not see: {}",
                       clip.positions, first.cut));
    ids[prompt] = {std::move(first.ids), std::move(second.ids)};
  }
  return ids;
}

std::map<std::string, models::PromptEmbedding> encode(const models::Model& model,
                                                      const nn::Weights& clip_weights,
                                                      const nn::Weights& t5_weights,
                                                      const std::map<std::string, PromptIds>& prompts,
                                                      at::Device device) {
  const text::ClipEncoder clip(clip_config(model), clip_weights);
  const text::T5Encoder t5(t5_config(model), t5_weights);
  std::map<std::string, models::PromptEmbedding> embeddings;
  for (const auto& [prompt, ids] : prompts)
    embeddings[prompt] = {.tokens = t5.encode(on(ids.t5, device)),
                          .pooled = clip.pooled(on(ids.clip, device))};
  return embeddings;
}

}  // namespace xdit::pipeline
