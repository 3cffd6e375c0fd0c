#include "output/path_template.h"

#include <fmt/format.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "config/values.h"
#include "core/error.h"
#include "core/nearest.h"
#include "output/unicode.h"

namespace xdit::output {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxName = 255;  // bytes: NAME_MAX of Linux's file systems

enum class Value : std::uint8_t { kLiteral, kSeed, kIndex, kPrompt, kDate };
const std::array<std::string, 4> kNames{"seed", "index", "prompt", "date"};  // in the order of Value

struct Piece {
  Value value = Value::kLiteral;
  std::string literal;
  int digits = 0;  // of an index, zero-padded
};
using Name = std::vector<Piece>;  // one part of a path

[[noreturn]] void refuse(const std::string& path_template, const std::string& why, const std::string& fix) {
  throw Error(ExitCode::kUsage, why, "-o " + config::in_quotes(path_template), fix);
}

// The placeholder or escape that starts at text[at]; moves `at` behind it.
Piece parse_special(const std::string& path_template, std::string_view text, std::size_t& at) {
  const std::string_view rest = text.substr(at);
  if (rest.starts_with("{{") || rest.starts_with("}}") || rest.starts_with("%%")) {
    at += 2;
    return {.literal = std::string(rest.substr(0, 1))};
  }
  if (rest[0] == '%') {
    const std::size_t end = rest.find_first_not_of("0123456789", 1);
    const std::string_view digits = rest.substr(1, end - 1);
    if (end == std::string_view::npos || rest[end] != 'd' || digits.size() > 2 ||
        (!digits.empty() && (digits.size() != 2 || digits[0] != '0')))
      refuse(path_template, "% stands for the index, as %d or %03d", "%% for a percent sign");
    at += end + 1;
    return {.value = Value::kIndex, .literal = {}, .digits = digits.empty() ? 0 : digits[1] - '0'};
  }
  const std::size_t end = rest.find('}');
  if (rest[0] == '}' || end == std::string_view::npos)
    refuse(path_template, fmt::format("a {} without its other half", rest[0]),
           fmt::format("{0}{0} for a brace in the name", rest[0]));
  const std::string name(rest.substr(1, end - 1));
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end())
    refuse(path_template, fmt::format("no placeholder {}", config::in_quotes("{" + name + "}")),
           suggest(name, kNames));
  at += end + 1;
  return {.value = static_cast<Value>(found - kNames.begin() + 1), .literal = {}};
}

Name parse_name(const std::string& path_template, std::string_view text) {
  Name name;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t special = std::min(text.find_first_of("{}%", at), text.size());
    if (special > at) name.push_back({.literal = std::string(text.substr(at, special - at))});
    at = special;
    if (at < text.size()) name.push_back(parse_special(path_template, text, at));
  }
  return name;
}

bool is_fixed(const Name& name) {
  return std::all_of(name.begin(), name.end(),
                     [](const Piece& piece) { return piece.value == Value::kLiteral; });
}

std::vector<Name> parse(const std::string& path_template) {
  const fs::path extension = fs::path(path_template).extension();
  std::string folded = extension.string();
  std::transform(folded.begin(), folded.end(), folded.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (folded != ".png") {
    const bool folder = extension.empty();
    refuse(path_template, "pictures are written as PNG files",
           fmt::format("-o '{}'", folder ? (fs::path(path_template) / "{seed}.png").string()
                                         : fs::path(path_template).replace_extension(".png").string()));
  }
  std::vector<Name> names;
  bool below_fixed = false;
  for (const fs::path& part : fs::path(path_template).relative_path()) {
    if (part.empty()) continue;
    if (below_fixed && part == "..")
      throw Error(ExitCode::kOutput, "'..' behind a placeholder would leave the output folder",
                  "-o " + config::in_quotes(path_template),
                  "the folder first, then placeholders: -o '../out/{seed}.png'");
    names.push_back(parse_name(path_template, part.string()));
    below_fixed = below_fixed || !is_fixed(names.back());
  }
  return names;
}

std::string fill(const Name& name, const config::Picture& picture, const std::string& date) {
  const auto text = [&](const Piece& piece) -> std::string {
    switch (piece.value) {
      case Value::kSeed:
        return fmt::format("{}", picture.seed);
      case Value::kIndex:
        return fmt::format("{:0{}}", picture.index, piece.digits);
      case Value::kDate:
        return sanitised(date);
      case Value::kPrompt:
        return {};
      case Value::kLiteral:
        break;
    }
    return piece.literal;
  };
  std::size_t used = 0;
  std::size_t prompts = 0;
  for (const Piece& piece : name) {
    used += text(piece).size();
    prompts += piece.value == Value::kPrompt ? 1 : 0;
  }
  if (used + prompts > kMaxName) {
    throw Error(ExitCode::kOutput, fmt::format("a name of more than {} bytes", kMaxName), "-o",
                "a shorter name");
  }
  std::string filled;
  for (const Piece& piece : name)
    filled +=
        piece.value == Value::kPrompt ? sanitised(picture.prompt, (kMaxName - used) / prompts) : text(piece);
  return filled;
}

// Two pictures would overwrite each other: says which placeholder tells them apart.
[[noreturn]] void refuse_collision(const std::string& path_template, const fs::path& path,
                                   const config::Picture& first, const config::Picture& second) {
  const std::string placeholder = first.seed != second.seed ? "{seed}" : "{index}";
  fs::path fix = path_template;
  fix.replace_filename(fix.stem().string() + "-" + placeholder + fix.extension().string());
  throw Error(
      ExitCode::kUsage,
      fmt::format("pictures {} and {} would both be written to {}", first.index, second.index, path.string()),
      "-o " + config::in_quotes(path_template), fmt::format("-o '{}'", fix.string()));
}

// The nearest folder that exists must take new entries.
void check_folder(fs::path folder) {
  if (folder.empty()) folder = ".";
  std::error_code error;
  while (!fs::exists(fs::symlink_status(folder, error)) && folder.has_parent_path() &&
         folder.parent_path() != folder)
    folder = folder.parent_path();
  if (!fs::exists(fs::symlink_status(folder, error))) folder = ".";
  if (!fs::is_directory(folder, error))
    throw Error(ExitCode::kOutput, "not a folder", folder.string(), "another folder with -o");
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    throw Error(ExitCode::kOutput, fmt::format("cannot write into the folder: {}", std::strerror(errno)),
                folder.string(), "a folder that you may write to, with -o");
}

void check_free(const std::vector<fs::path>& paths) {
  std::size_t count = 0;
  const fs::path* first = nullptr;
  for (const fs::path& path : paths) {
    std::error_code error;
    if (!fs::exists(fs::symlink_status(path, error))) continue;
    if (count++ == 0) first = &path;
  }
  if (count == 0) return;
  throw Error(ExitCode::kOutput,
              count == 1 ? "the file exists"
                         : fmt::format("this file and {} more of {} exist", count - 1, paths.size()),
              first->string(), "--overwrite, or another -o, e.g. -o 'out/{seed}.png'");
}

}  // namespace

std::string sanitised(const std::string& value, std::size_t bytes) {
  const std::u32string text = code_points(config::valid_utf8(value)).value();
  std::string name;
  for (const char32_t point : text) {
    const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
    const bool space = category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
                       category == UTF8PROC_CATEGORY_ZP || category == UTF8PROC_CATEGORY_CC;
    if (category == UTF8PROC_CATEGORY_CF) continue;  // invisible, and may turn the direction of writing
    std::string add = space ? " " : point == U'/' || point == U'\\' ? "_" : to_utf8({&point, 1});
    const bool leading = name.empty() && (add == " " || add == "." || add == "-");
    if (leading || (add == " " && name.ends_with(' '))) continue;
    if (name.size() + add.size() > bytes) break;
    name += add;
  }
  while (name.ends_with(' ') || name.ends_with('.')) name.pop_back();
  return name.empty() ? "_" : name;
}

std::string local_date(std::time_t time) {
  std::tm date{};
  ::localtime_r(&time, &date);
  return fmt::format("{:04}-{:02}-{:02}", date.tm_year + 1900, date.tm_mon + 1, date.tm_mday);
}

fs::path whole_path(const fs::path& path) {
  return fs::absolute(path).lexically_normal();
}

void check_output(const fs::path& file, bool overwrite) {
  if (!overwrite) check_free({file});
  check_folder(file.parent_path());
}

std::vector<fs::path> output_paths(const std::string& path_template,
                                   std::span<const config::Picture> pictures, const std::string& date,
                                   bool overwrite) {
  const std::vector<Name> names = parse(path_template);
  std::vector<fs::path> paths;
  std::unordered_map<std::string, std::size_t> owners;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    fs::path path = fs::path(path_template).root_path();
    for (const Name& name : names) path /= fill(name, pictures[i], date);
    const auto [owner, added] = owners.emplace(path.string(), i);
    if (!added) refuse_collision(path_template, path, pictures[owner->second], pictures[i]);
    paths.push_back(std::move(path));
  }
  if (!overwrite) check_free(paths);
  for (std::size_t i = 0; i < paths.size(); ++i)
    if (i == 0 || paths[i].parent_path() != paths[i - 1].parent_path()) check_folder(paths[i].parent_path());
  return paths;
}

}  // namespace xdit::output
