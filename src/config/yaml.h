#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace xdit::config {

/// A YAML value as it was written, and where.
struct YamlNode {
  enum class Kind : std::uint8_t { kNull, kScalar, kSequence, kMapping };
  Kind kind = Kind::kNull;
  std::string text;   ///< of a scalar
  bool plain = true;  ///< a scalar without quotes: its type follows from its text
  std::string where;  ///< "run.yaml:4:12", counted from 1, columns in characters
  std::size_t line = 0;
  std::vector<YamlNode> keys;   ///< of a mapping; keys[i] names items[i]
  std::vector<YamlNode> items;  ///< of a sequence or a mapping
  std::optional<Error> fault;   ///< of an entry, where faults are theirs
};

/// Parses one untrusted YAML document: UTF-8, at most depth 32 and 10,000 nodes, keys are scalars and differ;
/// no anchors, aliases, tags. An empty document is null. Faults throw `code` with `name`:line:column; with
/// `by_entry` those of keys, anchors, aliases and tags in a root list are their entry's, and those of syntax
/// in one whose entries begin at the left edge.
[[nodiscard]] YamlNode parse_yaml(std::string_view text, const std::string& name, ExitCode code,
                                  bool by_entry = false);

/// "a list", "text 'x'", "a number 12", ... : what YAML 1.1 or 1.2 takes the node for, fit for a message.
[[nodiscard]] std::string describe(const YamlNode& node);

/// Whether some YAML reader takes this scalar for text: quoted, or neither a number, a boolean nor null
/// (010, 1e3, no, ~, 0x1F are not text).
[[nodiscard]] bool is_text(const YamlNode& scalar);

}  // namespace xdit::config
