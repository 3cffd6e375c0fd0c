#include "output/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "output/unicode.h"

namespace xdit::output {
namespace {

using Ordered = nlohmann::ordered_json;

bool is_number(const Cell& cell) {
  return std::holds_alternative<std::int64_t>(cell) || std::holds_alternative<double>(cell);
}

// What would end a cell, start an element or a line.
std::string escaped_markdown(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '|' || c == '\\' || c == '*' || c == '`') safe += '\\';
    if (c == '<')
      safe += "&lt;";
    else if (c == '&')
      safe += "&amp;";
    else
      safe += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  return safe;
}

std::string for_people(const Cell& cell) {
  if (const auto* number = std::get_if<double>(&cell)) return three_digits(*number);
  if (const auto* number = std::get_if<std::int64_t>(&cell)) return fmt::format("{}", *number);
  const auto* text = std::get_if<std::string>(&cell);
  return text == nullptr ? "" : escaped_markdown(*text);
}

std::string padded(const std::string& text, std::size_t width, bool right) {
  const std::string space(width - std::min(width, columns_of(text)), ' ');
  return right ? space + text : text + space;
}

std::string quoted_csv(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

std::string csv_cell(const Cell& cell) {
  if (const auto* number = std::get_if<double>(&cell)) return fmt::format("{}", *number);
  if (const auto* number = std::get_if<std::int64_t>(&cell)) return fmt::format("{}", *number);
  const auto* text = std::get_if<std::string>(&cell);
  return text == nullptr ? "" : quoted_csv(*text);
}

Ordered json_cell(const Cell& cell) {
  if (const auto* number = std::get_if<double>(&cell)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&cell)) return *number;
  const auto* text = std::get_if<std::string>(&cell);
  return text == nullptr ? Ordered() : Ordered(*text);
}

Ordered json_row(const Table& table, const std::vector<Cell>& row) {
  Ordered object = Ordered::object();
  for (std::size_t i = 0; i < row.size(); ++i) object[table.columns[i].name] = json_cell(row[i]);
  return object;
}

}  // namespace

std::string three_digits(double value) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  const double size = std::abs(value);
  const int digits = size < 1e-9 ? 0 : 2 - static_cast<int>(std::floor(std::log10(size)));
  return fmt::format("{:.{}f}", value, std::clamp(digits, 0, 9));
}

std::string to_markdown(const Table& table) {
  std::vector<std::vector<std::string>> lines(table.rows.size() + 2);  // header, rule, rows
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    if (table.columns[i].title.empty()) continue;
    std::vector<std::string> texts{escaped_markdown(table.columns[i].title)};
    bool numbers = false;
    bool words = false;
    for (const std::vector<Cell>& row : table.rows) {
      texts.push_back(for_people(row[i]));
      numbers = numbers || is_number(row[i]);
      words = words || std::holds_alternative<std::string>(row[i]);
    }
    const bool right = numbers && !words;
    std::size_t width = 3;
    for (const std::string& text : texts) width = std::max(width, columns_of(text));
    lines[0].push_back(padded(texts[0], width, right));
    lines[1].push_back(std::string(width - (right ? 1 : 0), '-') + (right ? ":" : ""));
    for (std::size_t row = 0; row < table.rows.size(); ++row)
      lines[row + 2].push_back(padded(texts[row + 1], width, right));
  }
  std::string text;
  for (const std::vector<std::string>& line : lines) {
    for (const std::string& cell : line) text += "| " + cell + " ";
    text += "|\n";
  }
  return text;
}

std::string to_csv(const Table& table) {
  std::string text;
  for (std::size_t i = 0; i < table.columns.size(); ++i)
    text += (i == 0 ? "" : ",") + quoted_csv(table.columns[i].name);
  text += "\n";
  for (const std::vector<Cell>& row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) text += (i == 0 ? "" : ",") + csv_cell(row[i]);
    text += "\n";
  }
  return text;
}

std::string to_json(const Table& table) {
  Ordered rows = Ordered::array();
  for (const std::vector<Cell>& row : table.rows) rows.push_back(json_row(table, row));
  return rows.dump(2, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

std::string to_jsonl(const Table& table) {
  std::string lines;
  for (const std::vector<Cell>& row : table.rows)
    lines += json_row(table, row).dump(-1, ' ', false, Ordered::error_handler_t::replace) + "\n";
  return lines;
}

}  // namespace xdit::output
