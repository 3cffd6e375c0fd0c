#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace xdit::output {

/// A value of a table; std::monostate: nothing there.
using Cell = std::variant<std::monostate, std::int64_t, double, std::string>;

struct Table {
  struct Column {
    std::string name;   ///< for programs: "total_s"
    std::string title;  ///< for people: "total s"; "": not among what they read
  };
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;  ///< a cell a column
};

/// For people: GitHub's Markdown in columns of one width, numbers with three digits.
[[nodiscard]] std::string to_markdown(const Table& table);
[[nodiscard]] std::string to_csv(const Table& table);    ///< RFC 4180, but lines end in \n alone
[[nodiscard]] std::string to_json(const Table& table);   ///< an array with an object a row, indented
[[nodiscard]] std::string to_jsonl(const Table& table);  ///< an object a line

/// A number with three digits, without exponent: 0.0123, 1.23, 12.3, 1234.
[[nodiscard]] std::string three_digits(double value);

}  // namespace xdit::output
