#include "pipeline/prompts.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "text/clip_encoder.h"
#include "text/t5_encoder.h"
#include "text/tokenizer/tokenizer.h"

namespace xdit::pipeline {
namespace {

using models::TextEncoder;
using weights::Component;
using Tokens = TextEncoder::Tokens;

// What an encoder takes and gives.
struct Sizes {
  std::int64_t tokens = 0;
  std::int64_t vocabulary = 0;
  std::int64_t width = 0;         // of a token
  std::int64_t pooled_width = 0;  // 0: pools nothing
};
using Encode = std::function<text::ClipStates(const at::Tensor& ids)>;

// A class of text encoders of transformers.
struct Kind {
  std::string_view class_name;
  std::string_view name;  // for people
  std::unique_ptr<text::Tokenizer> (*open_tokenizer)(const std::filesystem::path& folder);
  Sizes (*sizes)(const Component& component, std::int64_t t5_length);
  Encode (*load)(const Component& component, const nn::Weights& weights);
};

Sizes clip_sizes(const Component& component, std::int64_t /*t5_length*/) {
  const text::ClipConfig clip = text::read_clip_config(component);
  return {clip.positions, clip.vocabulary, clip.width, clip.projection > 0 ? clip.projection : clip.width};
}
Encode load_clip(const Component& component, const nn::Weights& weights) {
  const auto clip = std::make_shared<text::ClipEncoder>(text::read_clip_config(component), weights);
  return [clip](const at::Tensor& ids) { return clip->encode(ids); };
}

text::T5Config t5_config(const Component& component) {
  return text::read_t5_config(component.config, (component.folder / "config.json").string());
}
Sizes t5_sizes(const Component& component, std::int64_t t5_length) {
  const text::T5Config t5 = t5_config(component);
  return {t5_length, t5.vocabulary, t5.width, 0};
}
Encode load_t5(const Component& component, const nn::Weights& weights) {
  const auto t5 = std::make_shared<text::T5Encoder>(t5_config(component), weights);
  return [t5](const at::Tensor& ids) {
    return text::ClipStates{.last = t5->encode(ids), .penultimate = {}, .pooled = {}};
  };
}

constexpr std::array kKinds{
    Kind{"CLIPTextModel", "CLIP", text::open_clip_tokenizer, clip_sizes, load_clip},
    Kind{"CLIPTextModelWithProjection", "CLIP", text::open_clip_tokenizer, clip_sizes, load_clip},
    Kind{"T5EncoderModel", "T5", text::open_t5_tokenizer, t5_sizes, load_t5},
};

const Kind& kind_of(const Component& component) {
  const auto* const found = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& kind) {
    return kind.class_name == component.class_name;
  });
  XDIT_ASSERT(found != kKinds.end());
  return *found;
}

// For models without files: as many ids as a tokenizer would give, and the same ones for the same prompt.
std::vector<std::int64_t> byte_ids(const std::string& prompt, const Sizes& sizes) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(sizes.tokens), 0);
  for (std::size_t i = 0; i < std::min(prompt.size(), ids.size()); ++i)
    ids[i] = (static_cast<unsigned char>(prompt[i]) + 3) % sizes.vocabulary;
  ids.back() = sizes.vocabulary - 1;
  return ids;
}

std::unique_ptr<text::Tokenizer> open_tokenizer(const models::Model& model, const TextEncoder& encoder,
                                                const Kind& kind, const Sizes& sizes) {
  const auto found = model.files.tokenizers.find(encoder.tokenizer);
  if (found == model.files.tokenizers.end())
    throw Error(ExitCode::kModel, fmt::format("no folder {}", encoder.tokenizer), model.files.path.string(),
                "--tokenizers DIR, a folder with the tokenizers' folders of the model as published");
  auto tokenizer = kind.open_tokenizer(found->second);
  if (tokenizer->vocabulary_size() > sizes.vocabulary)
    throw Error(ExitCode::kModel,
                fmt::format("{} has {} pieces, but its encoder embeds {}", encoder.tokenizer,
                            tokenizer->vocabulary_size(), sizes.vocabulary));
  return tokenizer;
}

// A line's worth of UTF-8.
std::string beginning(const std::string& text) {
  constexpr std::size_t kMost = 200;  // bytes
  if (text.size() <= kMost) return text;
  std::size_t end = kMost;
  while ((static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return fmt::format("{}... ({} bytes)", text.substr(0, end), text.size());
}

std::string cut_text(const TextEncoder& encoder, const Kind& kind, const Sizes& sizes,
                     const std::string& all_cut) {
  const std::string cut = beginning(all_cut);
  if (encoder.tokens == Tokens::kNone)
    return fmt::format("{}, which sets the overall style, reads {} tokens; it does not see: {}", kind.name,
                       sizes.tokens, cut);
  return fmt::format("the prompt is longer than {} {} tokens{}; cut off: {}", sizes.tokens, kind.name,
                     kind.name == "T5" ? " (--set sampling.max_sequence_length)" : "", cut);
}

at::Tensor on(const std::vector<std::int64_t>& ids, at::Device device) {
  return at::tensor(at::ArrayRef<std::int64_t>(ids), at::kLong).to(device);
}

}  // namespace

std::vector<double> size_ids(const config::RunSpec& spec, const models::Model& model, bool negative) {
  if (!model.embeds_sizes) return {};
  const config::RunSpec::Sampling& sampling = spec.sampling;
  const config::Extent whole{spec.image.width, spec.image.height};
  std::vector<double> ids;
  for (const config::Extent& sides :
       {sampling.original_size.value_or(whole), sampling.crop.value_or(config::Extent{}),
        sampling.target_size.value_or(whole)})
    for (const std::int64_t pixels : {sides.height, sides.width}) ids.push_back(static_cast<double>(pixels));
  if (!model.refines) return ids;
  ids.resize(4);
  ids.push_back(negative ? sampling.negative_aesthetic_score : sampling.aesthetic_score);
  return ids;
}

std::map<Prompt, PromptIds> tokenise(const models::Model& model, const std::set<Prompt>& prompts,
                                     std::int64_t t5_length,
                                     const std::function<void(std::string_view)>& warn) {
  std::map<Prompt, PromptIds> ids;
  std::set<std::string> told;  // two encoders may cut alike
  const bool from_bytes = model.dummy && model.files.tokenizers.empty();
  for (const TextEncoder& encoder : model.text_encoders) {
    const Component& component = model.files.components.at(encoder.component);
    const Kind& kind = kind_of(component);
    const Sizes sizes = kind.sizes(component, t5_length);
    const auto tokenizer = from_bytes ? nullptr : open_tokenizer(model, encoder, kind, sizes);
    for (const Prompt& prompt : prompts) {
      text::TokenIds made;
      if (tokenizer)
        made = tokenizer->encode(prompt.text, sizes.tokens);
      else
        made.ids = byte_ids(prompt.text, sizes);
      ids[prompt].push_back(std::move(made.ids));
      if (made.cut.empty()) continue;
      const std::string line = cut_text(encoder, kind, sizes, made.cut);
      if (told.insert(line).second) warn(line);
    }
  }
  return ids;
}

models::PromptEmbedding blank_embedding(const models::Model& model, std::int64_t t5_length,
                                        const at::TensorOptions& options) {
  models::PromptEmbedding blank;
  std::vector<at::Tensor> tokens;
  for (const TextEncoder& encoder : model.text_encoders) {
    const Component& component = model.files.components.at(encoder.component);
    const Sizes sizes = kind_of(component).sizes(component, t5_length);
    if (encoder.tokens != Tokens::kNone) tokens.push_back(at::zeros({sizes.tokens, sizes.width}, options));
    if (encoder.pooled) blank.pooled = at::zeros({sizes.pooled_width}, options);
  }
  blank.tokens = at::cat(tokens, 1);
  return blank;
}

std::map<Prompt, models::PromptEmbedding> encode(const models::Model& model, const EncoderWeights& weights,
                                                 const std::map<Prompt, PromptIds>& prompts,
                                                 at::Device device) {
  std::map<Prompt, std::vector<at::Tensor>> tokens;
  std::map<Prompt, models::PromptEmbedding> embeddings;
  for (std::size_t i = 0; i < model.text_encoders.size(); ++i) {
    const TextEncoder& encoder = model.text_encoders[i];
    const Component& component = model.files.components.at(encoder.component);
    const Encode encode = kind_of(component).load(component, *weights.at(encoder.component));
    for (const auto& [prompt, ids] : prompts) {
      const text::ClipStates states = encode(on(ids.at(i), device));
      if (encoder.pooled) embeddings[prompt].pooled = states.pooled;
      if (encoder.tokens == Tokens::kNone) continue;
      tokens[prompt].push_back(encoder.tokens == Tokens::kLast ? states.last : states.penultimate);
    }
  }
  for (const auto& [prompt, parts] : tokens) {
    models::PromptEmbedding& embedding = embeddings[prompt];
    embedding.tokens = parts.size() == 1 ? parts.front() : at::cat(parts, 1);
    if (!model.zero_empty_negative || !prompt.absent) continue;
    for (at::Tensor* part : {&embedding.tokens, &embedding.pooled})
      if (part->defined()) *part = at::zeros_like(*part);
  }
  return embeddings;
}

}  // namespace xdit::pipeline
