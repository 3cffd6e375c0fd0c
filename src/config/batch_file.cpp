#include "config/batch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "config/values.h"
#include "config/yaml.h"
#include "core/json.h"
#include "core/nearest.h"

namespace xdit::config {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::size_t kMaxLine = std::size_t{2} << 20U;

// A picture's own settings; the others are the batch's.
bool of_a_line(const Key& key) {
  return key.path == "prompt" || key.path == "negative_prompt" || key.path.starts_with("image.") ||
         key.path.starts_with("sampling.");
}

constexpr const char* kBothSides = "size";  // no key, but width and height as --size takes them

const Key& key_of(const std::string& name, const std::string& where) {
  std::string flag = name;
  std::replace(flag.begin(), flag.end(), '_', '-');
  std::vector<std::string> known{kBothSides};
  for (const Key& key : keys()) {
    if (!of_a_line(key)) continue;
    std::vector<std::string> flags = split(key.aliases, ' ');
    flags.emplace_back(key.flag);
    if (name == key.path || std::find(flags.begin(), flags.end(), "--" + flag) != flags.end()) return key;
    if (!key.flag.empty()) known.emplace_back(key.flag.substr(2));
  }
  const std::string near = nearest(flag, known);
  throw Error(ExitCode::kUsage, fmt::format("{} is no setting of a line", in_quotes(name)), where,
              near.empty() ? nearest_key(name, of_a_line) : near);
}

void add(const std::string& name, std::vector<std::string> values, BatchLine& line) {
  if (name == kBothSides) {
    if (values.size() > 1) throw Error(ExitCode::kUsage, "size takes one value", line.where, "1024x1024");
    for (Setting& pixels : parse_size(values.front(), line.where, "1024x1024"))
      add(pixels.key, std::move(pixels.values), line);
    return;
  }
  const Key& key = key_of(name, line.where);
  for (const std::string& value : values) {
    if (value.size() > kMaxLine)
      throw Error(ExitCode::kUsage, fmt::format("{} is longer than 2 MiB", key.path), line.where);
    if (valid_utf8(value) != value)
      throw Error(ExitCode::kUsage, "not UTF-8 text", line.where, "save the file as UTF-8");
  }
  if (values.size() > 1 && !key.list)
    throw Error(ExitCode::kUsage, fmt::format("{} takes one value", key.path), line.where);
  for (const Setting& other : line.settings)
    if (other.key == key.path)
      throw Error(ExitCode::kUsage, fmt::format("{} is there twice", key.path), line.where);
  line.settings.push_back({.key = std::string(key.path),
                           .values = std::move(values),
                           .where = line.where,
                           .code = ExitCode::kUsage});
}

// Fills one line, whose faults are its own.
template <class Read>
BatchLine line_of(std::string where, const Read& read) {
  BatchLine line{.where = std::move(where)};
  try {
    read(line);
  } catch (const Error& error) {
    line.fault = error;
  }
  return line;
}

std::string text_of(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  throw Error(ExitCode::kUsage, fmt::format("expected text or a number, found {}", value.type_name()), where);
}

void add_json(const std::string& prefix, const Json& object, BatchLine& line) {
  for (const auto& [name, value] : object.items()) {
    if (value.is_null()) continue;
    if (prefix.empty() && value.is_object()) {
      add_json(name + ".", value, line);
      continue;
    }
    std::vector<std::string> values;
    if (value.is_array())
      for (const Json& item : value) values.push_back(text_of(item, line.where));
    else
      values.push_back(text_of(value, line.where));
    if (!values.empty()) add(prefix + name, std::move(values), line);
  }
}

void read_json_line(std::string_view text, BatchLine& line) {
  const Json value = parse_json(text, line.where, ExitCode::kUsage);
  if (value.is_string()) return add("prompt", {value.get<std::string>()}, line);
  if (!value.is_object())
    throw Error(ExitCode::kUsage, fmt::format("expected an object, found {}", value.type_name()), line.where,
                R"({"prompt": "a fox", "seed": 1})");
  add_json("", value, line);
}

std::vector<BatchLine> read_lines(std::string_view text, const std::string& name, BatchFormat format) {
  std::vector<BatchLine> lines;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view one = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (one.ends_with('\r')) one.remove_suffix(1);
    if (one.find_first_not_of(" \t") == std::string_view::npos) continue;
    lines.push_back(line_of(fmt::format("{}:{}", name, number), [&](BatchLine& line) {
      if (one.size() > kMaxLine) throw Error(ExitCode::kUsage, "the line is longer than 2 MiB", line.where);
      if (format == BatchFormat::kJsonl)
        read_json_line(one, line);
      else
        add("prompt", {std::string(one)}, line);
    }));
  }
  return lines;
}

struct Row {
  std::size_t line = 0;  ///< it begins at
  std::vector<std::string> cells{};
  const char* fault = nullptr;
};

// The row at `at`, which moves behind it or to its fault.
Row read_row(std::string_view text, std::size_t& at, bool one_line) {
  const auto here = [&] { return text.substr(at, 1); };
  Row row;
  for (bool more = true; more; ++at) {
    std::string& cell = row.cells.emplace_back();
    if (here() == "\"") {
      for (++at; here() != "\"" || text.substr(at, 2) == "\"\""; ++at) {
        if (at >= text.size() || (one_line && here() == "\n")) {
          row.fault = "a quoted cell has no end";
          return row;
        }
        if (here() == "\"") ++at;
        cell += text[at];
      }
      at = std::min(text.find_first_not_of(" \t\r", at + 1), text.size());
      if (!here().empty() && here() != "," && here() != "\n") {
        row.fault = "a quoted cell goes on behind its end";
        return row;
      }
    } else {
      const std::size_t end = std::min(text.find_first_of(",\n", at), text.size());
      cell = text.substr(at, end - at);
      at = end;
      if (here() != "," && cell.ends_with('\r')) cell.pop_back();
    }
    more = here() == ",";
  }
  return row;
}

std::vector<Row> read_rows(std::string_view text) {
  std::vector<Row> rows;
  std::size_t line = 1;
  std::size_t one_line = 0;  // rows that begin before this take one line: they lay in a quote without an end
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    Row row = read_row(text, at, begin < one_line);
    row.line = line;
    if (row.fault != nullptr) {
      one_line = std::max(one_line, text.rfind('\n', at - 1) + 1);
      at = std::min(text.find('\n', begin), text.size()) + 1;
    }
    const std::string_view taken = text.substr(begin, at - begin);
    line += static_cast<std::size_t>(std::count(taken.begin(), taken.end(), '\n'));
    if (row.fault != nullptr || row.cells.size() > 1 || !row.cells.front().empty())
      rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<BatchLine> read_csv(std::string_view text, const std::string& name) {
  std::vector<BatchLine> lines;
  const std::vector<Row> rows = read_rows(text);
  if (rows.empty()) return lines;
  const auto check = [](const Row& row, const std::string& where) {
    if (row.fault != nullptr)
      throw Error(ExitCode::kUsage, row.fault, where, R"("a fox, red", in which "" stands for a quote)");
  };
  const Row& head = rows.front();
  check(head, fmt::format("{}:{}", name, head.line));
  for (const std::string& column : head.cells) try {
      if (column != kBothSides) static_cast<void>(key_of(column, fmt::format("{}:{}", name, head.line)));
    } catch (const Error& error) {
      if (!error.fix().empty()) throw;
      throw Error(error.code(), error.message(), error.where(),
                  "a first row that names settings, with commas between them: prompt,seed");
    }
  for (auto row = rows.begin() + 1; row != rows.end(); ++row)
    lines.push_back(line_of(fmt::format("{}:{}", name, row->line), [&](BatchLine& line) {
      check(*row, line.where);
      if (row->cells.size() != head.cells.size())
        throw Error(ExitCode::kUsage,
                    fmt::format("expected {} cells, found {}", head.cells.size(), row->cells.size()),
                    line.where, "quotes around a cell with a comma");
      for (std::size_t i = 0; i < head.cells.size(); ++i)
        if (!row->cells[i].empty()) add(head.cells[i], {row->cells[i]}, line);
    }));
  return lines;
}

std::string text_of(const YamlNode& node, const std::string& name) {
  if (node.kind != YamlNode::Kind::kScalar)
    throw Error(ExitCode::kUsage, fmt::format("{}: found {}", name, describe(node)), node.where);
  return node.text;
}

void add_yaml(const std::string& prefix, const YamlNode& node, BatchLine& line) {
  for (std::size_t i = 0; i < node.keys.size(); ++i) {
    const std::string& name = node.keys[i].text;
    const YamlNode& item = node.items[i];
    if (prefix.empty() && item.kind == YamlNode::Kind::kMapping) {
      add_yaml(name + ".", item, line);
      continue;
    }
    std::vector<std::string> values;
    if (item.kind == YamlNode::Kind::kSequence)
      for (const YamlNode& one : item.items) values.push_back(text_of(one, name));
    else
      values.push_back(text_of(item, name));
    if (!values.empty()) add(prefix + name, std::move(values), line);
  }
}

std::vector<BatchLine> read_yaml(std::string_view text, const std::string& name) {
  const YamlNode root = parse_yaml(text, name, ExitCode::kUsage, /*by_entry=*/true);
  if (root.kind != YamlNode::Kind::kSequence)
    throw Error(ExitCode::kUsage, fmt::format("expected a list, found {}", describe(root)), name,
                "- {prompt: a fox, seed: 1}");
  std::vector<BatchLine> lines;
  lines.reserve(root.items.size());
  for (const YamlNode& item : root.items)
    lines.push_back(line_of(item.where, [&](BatchLine& line) {
      if (item.fault) throw Error(*item.fault);
      if (item.kind == YamlNode::Kind::kMapping) return add_yaml("", item, line);
      if (item.kind != YamlNode::Kind::kScalar || !is_text(item))
        throw Error(ExitCode::kUsage, fmt::format("expected a prompt, found {}", describe(item)), item.where);
      add("prompt", {item.text}, line);
    }));
  return lines;
}

}  // namespace

BatchLine read_batch_line(const Json& object, const std::string& where) {
  return line_of(where, [&](BatchLine& line) { add_json("", object, line); });
}

BatchFormat batch_format(const std::string& name, std::string_view text) {
  std::string ending = name.substr(std::min(name.rfind('.'), name.size()));
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const std::size_t first = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  const bool opens = text.substr(first).starts_with('[');
  const std::size_t second =
      std::min(text.find_first_not_of(" \t\r\n", first + (opens ? 1 : 0)), text.size());
  const bool list = opens && (ending == ".json" || text.substr(second).starts_with('{'));  // JSON is YAML
  if (ending == ".csv") return BatchFormat::kCsv;
  if (ending == ".yaml" || ending == ".yml" || list) return BatchFormat::kYaml;
  const bool object = text.substr(first).starts_with('{');
  return ending == ".jsonl" || ending == ".ndjson" || object ? BatchFormat::kJsonl : BatchFormat::kText;
}

std::vector<BatchLine> read_batch(std::string_view text, const std::string& name, BatchFormat format) {
  if (text.find('\0') != std::string_view::npos)
    throw Error(ExitCode::kUsage, "not UTF-8 text", name, "save the file as UTF-8");
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  if (format == BatchFormat::kCsv) return read_csv(text, name);
  if (format == BatchFormat::kYaml) return read_yaml(text, name);
  return read_lines(text, name, format);
}

}  // namespace xdit::config
