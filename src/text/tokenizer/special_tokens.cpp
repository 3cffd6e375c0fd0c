#include "text/tokenizer/special_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/error.h"
#include "text/tokenizer/files.h"

namespace xdit::text {
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMostTokens = 10'000;  // keeps what is quadratic below quick
constexpr std::array<const char*, 7> kNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                                               "pad_token", "cls_token", "mask_token"};

// A token as a file has it. In transformers a plain string never equals a described token.
struct Description {
  AddedToken token;
  bool plain;
  bool special;
  std::optional<bool> normalized;
  bool operator==(const Description&) const = default;
};
using Descriptions = std::vector<Description>;

Error fault(const fs::path& file, const std::string& key, const std::string& what) {
  return {ExitCode::kModel, what, fmt::format("{}: {}", file.string(), key)};
}

Json object_or_empty(const fs::path& file) {
  if (!fs::exists(file)) return Json::object();
  Json value = read_json(file, ExitCode::kModel, kFileLimit);
  if (!value.is_object()) throw Error(ExitCode::kModel, "expected an object", file.string());
  return value;
}

bool flag(const Json& object, const char* name, const fs::path& file, const std::string& key) {
  const Json* value = find_member(object, name);
  if (value != nullptr && !value->is_boolean())
    throw fault(file, key, fmt::format("\"{}\" is not true or false", name));
  return value != nullptr && value->get<bool>();
}

Description describe(const Json& value, const fs::path& file, const std::string& key) {
  const Json* content = value.is_string() ? &value : find_member(value, "content");
  if (content == nullptr || !content->is_string() || content->get_ref<const std::string&>().empty())
    throw fault(file, key, "expected a token: text, or an object with \"content\"");
  Description described{{.content = *content}, true, true, {}};
  if (value.is_string()) return described;
  described.plain = false;
  described.special = flag(value, "special", file, key);
  described.token.left_strip = flag(value, "lstrip", file, key);
  described.token.right_strip = flag(value, "rstrip", file, key);
  if (find_member(value, "normalized") != nullptr)
    described.normalized = flag(value, "normalized", file, key);
  if (flag(value, "single_word", file, key))
    throw fault(file, key, "\"single_word\" tokens are not supported");
  return described;
}

Descriptions describe_list(const Json& list, const fs::path& file, const std::string& key) {
  if (!list.is_array()) throw fault(file, key, "expected a list of tokens");
  Descriptions described;
  for (const Json& value : list) described.push_back(describe(value, file, key));
  return described;
}

std::int64_t index_of(const std::string& text, const fs::path& file, const std::string& key) {
  std::int64_t index = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size() || index < 0)
    throw fault(file, key, fmt::format("\"{}\" is not the id of a token", text));
  return index;
}

// Gathers the settings in transformers' order of precedence (PreTrainedTokenizerBase._from_pretrained).
class Reader {
 public:
  Reader(fs::path folder, const Json* document) : folder_(std::move(folder)) {
    settings_ = object_or_empty(config_);
    for (const char* side : {"padding_side", "truncation_side"})
      if (settings_.contains(side) && settings_[side] != "right")
        throw fault(config_, side, "only \"right\" is supported");
    if (flag(settings_, "split_special_tokens", config_, "split_special_tokens"))
      throw fault(config_, "split_special_tokens", "only false is supported");
    if (settings_.contains("additional_special_tokens") && !has_extra()) {
      settings_["extra_special_tokens"] = settings_["additional_special_tokens"];
      settings_.erase("additional_special_tokens");
    }
    if (settings_.contains("added_tokens_decoder"))
      read_decoder();
    else
      read_older_files(document);
  }

  [[nodiscard]] const Json& settings() const { return settings_; }
  // The file that a setting comes from.
  [[nodiscard]] const fs::path& file_of(const std::string& name) const {
    return mapped_.contains(name) ? map_ : config_;
  }
  [[nodiscard]] const std::map<std::int64_t, Description>& by_index() const { return by_index_; }

  // The token that a name stands for: as added_tokens_decoder describes it, if it does.
  [[nodiscard]] std::optional<Description> named(const std::string& name) const {
    const auto at = settings_.find(name);
    if (at == settings_.end() || at->is_null()) return std::nullopt;
    const Description own = describe(*at, file_of(name), name);
    for (const auto& [index, described] : by_index_)
      if (described.token.content == own.token.content) return described;
    return own;
  }

 private:
  [[nodiscard]] bool has_extra() const {
    const auto at = settings_.find("extra_special_tokens");
    return at != settings_.end() && !at->empty();
  }

  void read_decoder() {
    const Json& decoder = settings_["added_tokens_decoder"];
    if (!decoder.is_object()) throw fault(config_, "added_tokens_decoder", "expected an object");
    for (const auto& [index, value] : decoder.items()) {
      const std::string key = "added_tokens_decoder." + index;
      if (!value.is_object()) throw fault(config_, key, "expected a token: an object with \"content\"");
      insert(index_of(index, config_, "added_tokens_decoder"), describe(value, config_, key), config_);
    }
  }

  void read_older_files(const Json* document) {
    const Json names = object_or_empty(map_);
    for (const auto& [name, value] : names.items()) {
      mapped_.insert(name);
      if (value.is_object()) {
        settings_[name] = value;
        settings_[name]["special"] = true;
      } else if (name == "extra_special_tokens" && value.is_array() && has_extra()) {
        for (const Json& token : value)
          if (std::ranges::find(settings_[name], token) == settings_[name].end())
            settings_[name].push_back(token);
      } else {
        settings_[name] = value;
      }
    }
    const fs::path added = folder_ / "added_tokens.json";
    const Json ids = object_or_empty(added);
    for (const auto& [content, index] : ids.items()) {
      if (!index.is_number_unsigned()) throw fault(added, content, "expected the id of a token");
      const bool special = is_special(content);
      insert(index.get<std::int64_t>(), {{.content = content}, false, special, !special}, added);
    }
    if (document == nullptr || !document->contains("added_tokens")) return;
    const fs::path file = folder_ / "tokenizer.json";
    const Json& tokens = (*document)["added_tokens"];
    if (!tokens.is_array()) throw fault(file, "added_tokens", "expected a list");
    for (const Json& token : tokens) {
      const Description described = describe(token, file, "added_tokens");
      if (described.plain || !token.contains("id") || !token["id"].is_number_unsigned())
        throw fault(file, "added_tokens",
                    fmt::format("expected an \"id\" of \"{}\"", described.token.content));
      insert(token["id"].get<std::int64_t>(), described, file);
    }
  }

  [[nodiscard]] bool is_special(const std::string& content) const {
    const auto says = [&](const Json& value) {
      return value == content || (value.is_object() && value.value("content", Json()) == content);
    };
    const auto extra = settings_.find("extra_special_tokens");
    return std::ranges::any_of(
               kNames, [&](const char* name) { return settings_.contains(name) && says(settings_[name]); }) ||
           (extra != settings_.end() && std::ranges::any_of(*extra, says));
  }

  void insert(std::int64_t index, const Description& described, const fs::path& file) {
    by_index_.insert_or_assign(index, described);
    if (by_index_.size() > kMostTokens)
      throw fault(file, "added tokens", fmt::format("more than {}", kMostTokens));
  }

  fs::path folder_;
  fs::path config_ = folder_ / "tokenizer_config.json";
  fs::path map_ = folder_ / "special_tokens_map.json";
  Json settings_;
  std::set<std::string> mapped_;  // settings that come from map_
  std::map<std::int64_t, Description> by_index_;
};

std::int64_t count_of_sentinels(const Reader& reader) {
  const Json count = reader.settings().value("extra_ids", Json(100U));
  if (!count.is_number_unsigned() || count.get<std::uint64_t>() > kMostTokens)
    throw fault(reader.file_of("extra_ids"), "extra_ids",
                fmt::format("expected a whole number up to {}", kMostTokens));
  return count.get<std::int64_t>();
}

// transformers' `extra_special_tokens`.
Descriptions extra_tokens(const Reader& reader, bool sentinels,
                          const std::optional<std::vector<AddedToken>>& pieces) {
  const Json& settings = reader.settings();
  if (const auto at = settings.find("extra_special_tokens"); at != settings.end() && !at->is_null())
    return describe_list(*at, reader.file_of("extra_special_tokens"), "extra_special_tokens");
  Descriptions extra;
  if (pieces)
    for (const AddedToken& piece : *pieces) extra.push_back({piece, false, true, piece.normalized});
  else if (const auto at = settings.find("additional_special_tokens"); at != settings.end() && !at->is_null())
    extra = describe_list(*at, reader.file_of("additional_special_tokens"), "additional_special_tokens");
  const auto is_sentinel = [](const Description& d) {
    return d.token.content.find("<extra_id_") != std::string::npos;
  };
  if (!sentinels || std::ranges::any_of(extra, is_sentinel)) return extra;
  for (std::int64_t i = 0; i < count_of_sentinels(reader); ++i)
    extra.push_back({{.content = fmt::format("<extra_id_{}>", i)}, true, true, {}});
  return extra;
}

}  // namespace

SpecialTokens read_special_tokens(const fs::path& folder, const TokenizerClass& defaults,
                                  const Json* document,
                                  const std::optional<std::vector<AddedToken>>& pieces) {
  const Reader reader(folder, document);
  SpecialTokens result;
  if (defaults.sentinels) result.sentinels = count_of_sentinels(reader);

  Descriptions named;
  const auto add_name = [&](const std::string& name) {
    auto described = reader.named(name);
    if (const auto own = defaults.names.find(name); own != defaults.names.end()) {
      if (!described && reader.settings().contains(name))
        throw fault(reader.file_of(name), name, "expected a token");
      if (!described) described = Description{{.content = own->second}, true, true, {}};
    }
    if (!described) return;
    result.names[name] = described->token.content;
    named.push_back(*std::move(described));
  };
  for (const char* name : kNames) add_name(name);
  constexpr std::size_t kMostNames = 100;
  for (const auto& [name, value] : reader.settings().items()) {  // of one model only, such as "image_token"
    if (!name.ends_with("_token") || std::ranges::find(kNames, name) != kNames.end()) continue;
    if (value.is_string() || value.is_object()) add_name(name);
    if (named.size() > kMostNames)
      throw fault(reader.file_of(name), name, fmt::format("more than {} names", kMostNames));
  }

  Descriptions tokens;
  for (const auto& [index, described] : reader.by_index()) tokens.push_back(described);
  const auto indexed = static_cast<std::ptrdiff_t>(tokens.size());
  const auto add_all = [&](const Descriptions& more) {
    for (const Description& described : more) {
      const auto same_content = [&](const Description& d) {
        return d.token.content == described.token.content;
      };
      if (std::any_of(tokens.begin(), tokens.begin() + indexed, same_content)) continue;
      if (std::ranges::find(tokens, described) == tokens.end()) tokens.push_back(described);
    }
  };
  const Descriptions extra = extra_tokens(reader, defaults.sentinels, pieces);
  if (named.size() + extra.size() > kMostTokens)
    throw fault(folder, "special tokens", fmt::format("more than {}", kMostTokens));
  add_all(named);
  add_all(extra);
  for (Description& described : tokens) {
    const auto names_it = [&](const auto& entry) { return entry.second == described.token.content; };
    const bool special = described.special || std::ranges::any_of(result.names, names_it);
    described.token.normalized = described.normalized.value_or(!special);
    result.added.push_back(std::move(described.token));
  }
  return result;
}

}  // namespace xdit::text
