#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace xdit::text {

/// Token ids of a prompt, padded or cut to the asked length.
struct TokenIds {
  std::vector<std::int64_t> ids;  ///< exactly `length` of them
  std::int64_t used = 0;          ///< ids before padding, special tokens included
  std::string cut;                ///< the end of the prompt that did not fit (decoded), or ""
};

/// Text -> ids, equal to transformers' tokenizer for the same files. Immutable; safe from several threads.
class Tokenizer {
 public:
  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  virtual ~Tokenizer() = default;
  /// All ids of `utf8` (invalid bytes become U+FFFD, as Python's errors="replace"), no special tokens.
  [[nodiscard]] virtual std::vector<std::int64_t> ids(std::string_view utf8) const = 0;
  /// As transformers' padding="max_length", truncation=True.
  [[nodiscard]] virtual TokenIds encode(std::string_view utf8, std::int64_t length) const = 0;
  [[nodiscard]] virtual std::int64_t vocabulary_size() const = 0;
};

/// CLIP's byte-level BPE from a folder with vocab.json + merges.txt, or tokenizer.json alone. Bounded memory
/// on hostile files; every fault is Error(kModel) with file and place.
[[nodiscard]] std::unique_ptr<Tokenizer> open_clip_tokenizer(const std::filesystem::path& folder);

/// T5's Unigram from a folder with tokenizer.json or spiece.model, precompiled normaliser included.
[[nodiscard]] std::unique_ptr<Tokenizer> open_t5_tokenizer(const std::filesystem::path& folder);

}  // namespace xdit::text
