#include "text/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "text/tokenizer/unicode.h"

namespace xdit::text {

namespace {

std::size_t begin_of_spaces_at_end(std::string_view text) {
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();)
    if (!is_space(next_code_point(text, at))) begin = at;
  return begin;
}

std::size_t end_of_spaces_at_begin(std::string_view text) {
  std::size_t end = 0;
  for (std::size_t at = 0; at < text.size() && is_space(next_code_point(text, at));) end = at;
  return end;
}

}  // namespace

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens, const Vocabulary& vocabulary)
    : size_(vocabulary.size) {
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const auto known = ids_.find(token.content);
    const auto piece = vocabulary.id_of(token.content);
    const std::int64_t id = known != ids_.end() ? known->second : piece ? *piece : size_++;
    ids_[token.content] = id;
    entries_[id] = {token.normalized ? vocabulary.normalize(token.content) : token.content, token.left_strip,
                    token.right_strip, token.normalized};
  }
  std::vector<PrefixTrie::Entry> raw;
  std::vector<PrefixTrie::Entry> normalized;
  for (const auto& [id, entry] : entries_)
    if (!entry.text.empty())
      (entry.normalized ? normalized : raw).push_back({entry.text, static_cast<std::int32_t>(id)});
  raw_ = PrefixTrie(std::move(raw));
  normalized_ = PrefixTrie(std::move(normalized));
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, bool normalized) const {
  const PrefixTrie& trie = normalized ? normalized_ : raw_;
  std::vector<Part> parts;
  std::size_t done = 0;  // where the last token ended, its spaces included
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 0;
    std::int64_t id = -1;
    trie.for_each_prefix(text.substr(at), [&](std::size_t prefix, std::int32_t value) {
      length = prefix;
      id = value;
    });
    if (id < 0) {
      ++at;
      continue;
    }
    const Entry& entry = entries_.at(id);
    std::size_t begin = at;
    at += length;
    std::size_t end = at;
    if (entry.left_strip) begin = std::max(begin_of_spaces_at_end(text.substr(0, begin)), done);
    if (entry.right_strip) end += end_of_spaces_at_begin(text.substr(end));
    if (done < begin) parts.push_back({text.substr(done, begin - done)});
    parts.push_back({text.substr(begin, end - begin), id});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done)});
  return parts;
}

std::optional<std::int64_t> AddedTokens::id_of(const std::string& content) const {
  const auto at = ids_.find(content);
  return at == ids_.end() ? std::nullopt : std::optional(at->second);
}

const std::string* AddedTokens::text_of(std::int64_t id) const {
  const auto at = entries_.find(id);
  return at == entries_.end() ? nullptr : &at->second.text;
}

}  // namespace xdit::text
