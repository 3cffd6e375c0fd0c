#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "core/json.h"

namespace xdit::config {

enum class BatchFormat : std::uint8_t { kText, kJsonl, kCsv, kYaml };

/// One line of a batch: what it sets, or what is wrong with it.
struct BatchLine {
  std::string where;  ///< "prompts.jsonl:12"; of YAML with a column
  Layer settings{};   ///< prompt, negative_prompt, image and sampling keys
  std::optional<Error> fault{};
};

/// By the ending of `name` in any case: .jsonl, .csv, .yaml, .json (a list, or JSONL); anything else is text,
/// or JSONL where it begins with '{', or such a list where with "[{".
[[nodiscard]] BatchFormat batch_format(const std::string& name, std::string_view text);

/// Reads untrusted text. A setting is named by its key ("sampling.steps", also nested) or its flag ("steps").
/// - text: a prompt a line
/// - JSONL: an object, or a prompt as a string, a line
/// - CSV (RFC 4180): the first row names settings, an empty cell sets nothing; where a row's quotes do not
///   end, the next line begins a row
/// - YAML: a list of mappings or prompts
/// Empty lines count and give nothing. Zero bytes (UTF-16, or no text at all) are a fault of the whole. A
/// fault of one line is in its `fault`; one of the whole is Error(kUsage).
[[nodiscard]] std::vector<BatchLine> read_batch(std::string_view text, const std::string& name,
                                                BatchFormat format);

/// The line that a JSON object is.
[[nodiscard]] BatchLine read_batch_line(const Json& object, const std::string& where);

}  // namespace xdit::config
