#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "text/tokenizer/added_tokens.h"

namespace xdit::text {

/// What a tokenizer class of transformers knows before it reads a folder.
struct TokenizerClass {
  std::map<std::string, std::string> names;  ///< "eos_token" -> "</s>"
  bool sentinels = false;                    ///< T5's <extra_id_0> ...
};

struct SpecialTokens {
  std::map<std::string, std::string> names;  ///< "eos_token" -> "</s>": the class's, or the folder's instead
  std::vector<AddedToken> added;             ///< in the order in which transformers adds them
  std::int64_t sentinels = 0;                ///< how many <extra_id_N> (`extra_ids`)
};

/// What transformers 5 takes from tokenizer_config.json, and, where that has no added_tokens_decoder, from
/// special_tokens_map.json, added_tokens.json and tokenizer.json (`document`; may be null). `pieces`: the
/// control and user-defined pieces of a sentencepiece model. Each file may be missing; faults are
/// Error(kModel).
[[nodiscard]] SpecialTokens read_special_tokens(const std::filesystem::path& folder,
                                                const TokenizerClass& defaults, const Json* document,
                                                const std::optional<std::vector<AddedToken>>& pieces = {});

}  // namespace xdit::text
