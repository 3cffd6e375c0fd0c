#include "config/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <sstream>
#include <utility>

#include "config/values.h"

namespace xdit::config {
namespace {

constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxNodes = 10'000;
constexpr std::array kBooleans{"true", "false", "yes", "no", "on", "off", "y", "n"};

// The text, and places in it. Walks on from the last place asked for, so that many places cost one pass.
struct Source {
  std::string_view text;  // to the end of what is parsed
  const std::string& name;
  ExitCode code;
  std::size_t begin = 0;  // of what is parsed
  std::size_t nodes = 0;
  std::size_t position = 0;
  std::size_t line = 1;
  std::size_t column = 1;

  [[nodiscard]] std::string at(std::size_t wanted) {
    if (wanted < position) position = 0, line = column = 1;
    for (wanted = std::min(wanted, text.size()); position < wanted; ++position) {
      const auto byte = static_cast<unsigned char>(text[position]);
      if (byte == '\n')
        ++line, column = 1;
      else if ((byte & 0xC0U) != 0x80U)  // not the inside of a character
        ++column;
    }
    return fmt::format("{}:{}:{}", name, line, column);
  }
  [[nodiscard]] std::size_t position_of(const YAML::Mark& mark) const {
    return mark.pos < 0 ? text.size() : std::min(begin + static_cast<std::size_t>(mark.pos), text.size());
  }
  [[nodiscard]] std::string at(const YAML::Mark& mark) { return at(position_of(mark)); }

  // Whether a quote that opens there is closed: yaml-cpp takes a line break at the end of the file for its
  // end.
  [[nodiscard]] bool closed(const YAML::Mark& mark) const {
    const std::string_view rest = text.substr(position_of(mark));
    if (!rest.starts_with('"') && !rest.starts_with('\'')) return true;
    const char escape = rest.front() == '"' ? '\\' : '\'';
    for (std::size_t i = 1; i < rest.size(); ++i) {
      if (rest[i] == escape && (escape == '\\' || rest.substr(i + 1).starts_with(escape)))
        ++i;
      else if (rest[i] == rest.front())
        return true;
    }
    return false;
  }
};

// Builds the tree and refuses, while yaml-cpp parses, what a profile must not hold.
class Builder : public YAML::EventHandler {
 public:
  Builder(Source& source, bool by_entry) : source_(source), by_entry_(by_entry) {}

  [[nodiscard]] bool done() const { return done_; }
  YamlNode root;

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (done_) refuse(mark, "a second YAML document");
  }
  void OnDocumentEnd() override { done_ = true; }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "a YAML alias");
    leaf(mark, "", {}, {});
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { leaf(mark, "", anchor, {}); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (!source_.closed(mark)) throw YAML::ParserException(mark, "a quote has no end");
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.text = value;
    node.plain = tag != "!";  // yaml-cpp's sign of quotes and block scalars
    leaf(mark, node.plain ? tag : "", anchor, std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kSequence);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kMapping);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  void refuse(Error why) {
    if (!by_entry_ || stack_.empty() || stack_.front().kind != YamlNode::Kind::kSequence) throw Error(why);
    if (!fault_) fault_ = std::move(why);
  }
  void refuse(const YAML::Mark& mark, const std::string& what) {
    refuse({source_.code, what + " is not allowed here", source_.at(mark), "write the plain value"});
  }

  YamlNode start(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode node) {
    node.where = source_.at(mark);
    node.line = source_.line;
    if (++source_.nodes > kMaxNodes)
      throw Error(source_.code, "more than 10,000 YAML nodes", node.where,
                  by_entry_ ? "JSONL or CSV, which may be longer" : "");
    // An empty non-specific tag ("! x") reads like quotes: the source tells them apart.
    const bool tagged = source_.text.substr(source_.position_of(mark)).starts_with('!');
    if (anchor != YAML::NullAnchor) refuse(mark, "a YAML anchor");
    if (tagged || (!tag.empty() && tag != "?")) refuse(mark, "a YAML tag");
    return node;
  }

  void leaf(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode node) {
    add(start(mark, tag, anchor, std::move(node)));
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    YamlNode node = start(mark, tag, anchor, {});
    node.kind = kind;
    if (stack_.size() == kMaxDepth) throw Error(source_.code, "YAML nested deeper than 32", node.where);
    stack_.push_back(std::move(node));
  }

  void close() {
    YamlNode node = std::move(stack_.back());
    stack_.pop_back();
    add(std::move(node));
  }

  void add(YamlNode node) {
    if (stack_.empty()) {
      root = std::move(node);
      return;
    }
    YamlNode& parent = stack_.back();
    if (stack_.size() == 1) node.fault = std::exchange(fault_, std::nullopt);
    const bool is_key = parent.kind == YamlNode::Kind::kMapping && parent.keys.size() == parent.items.size();
    if (!is_key) {
      // An absent value of a block mapping has the place of the next key.
      const bool absent = node.kind == YamlNode::Kind::kNull && parent.kind == YamlNode::Kind::kMapping;
      if (absent && node.line != parent.keys.back().line) node.where = parent.keys.back().where;
      parent.items.push_back(std::move(node));
      return;
    }
    if (node.kind != YamlNode::Kind::kScalar)
      refuse({source_.code, fmt::format("expected a key, found {}", describe(node)), node.where});
    for (const YamlNode& key : parent.keys)
      if (key.text == node.text)
        refuse({source_.code, fmt::format("duplicate key {}, first at {}", in_quotes(node.text), key.where),
                node.where, "remove one of them"});
    parent.keys.push_back(std::move(node));
  }

  Source& source_;
  bool by_entry_;
  std::optional<Error> fault_;  // of the entry of the root list that is being read
  std::vector<YamlNode> stack_;
  bool done_ = false;
};

// What YAML 1.1 or 1.2 resolves a plain scalar to, or "" for text. 1.1 counts too: its readers are common.
std::string_view resolved(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower.empty() || lower == "~" || lower == "null") return "null";
  if (std::find(kBooleans.begin(), kBooleans.end(), lower) != kBooleans.end()) return "a boolean";
  std::string_view number = lower;
  if (number.front() == '-' || number.front() == '+') number.remove_prefix(1);
  if (number == ".inf" || number == ".nan") return "a number";
  for (const std::string_view prefix : {"0x", "0o", "0b"})
    if (number.starts_with(prefix) && number.size() > 2 &&
        number.find_first_not_of("0123456789abcdef_", 2) == std::string_view::npos)
      return "a number";
  const bool has_digit = number.find_first_of("0123456789") != std::string_view::npos;
  const bool starts = !number.empty() && (std::isdigit(static_cast<unsigned char>(number.front())) != 0 ||
                                          number.front() == '.');
  const std::size_t mantissa = std::min(number.find_first_not_of("0123456789_."), number.size());
  std::string_view exponent = number.substr(mantissa);
  if (!has_digit || !starts || std::count(number.begin(), number.end(), '.') > 1) return "";
  if (exponent.empty()) return "a number";
  if (exponent.front() != 'e') return "";
  exponent.remove_prefix(1);
  if (!exponent.empty() && (exponent.front() == '-' || exponent.front() == '+')) exponent.remove_prefix(1);
  const bool digits = exponent.find_first_not_of("0123456789") == std::string_view::npos;
  return !exponent.empty() && digits ? "a number" : "";
}

// What lies in the source. Throws YAML::Exception where that is no YAML.
YamlNode parse(Source& source, bool by_entry) {
  std::istringstream stream{std::string(source.text.substr(source.begin))};
  Builder builder(source, by_entry);
  YAML::Parser parser(stream);
  while (parser.HandleNextDocument(builder)) {
  }
  return std::move(builder.root);
}

Error not_yaml(const YAML::Exception& error, Source& source) {
  const std::size_t last = source.text.find_last_not_of(" \t\r\n");  // not the line behind
  return {source.code, "not valid YAML: " + error.msg,
          source.at(std::max(source.begin, std::min(source.position_of(error.mark), last)))};
}

// The root list whose entries begin at the left edge, each parsed by itself, so that only those are lost that
// are no YAML. Nothing, if the text is no such list.
std::optional<YamlNode> parse_entries(Source source) {
  const std::string_view text = std::exchange(source.text, {});
  source.nodes = 0;
  std::vector<std::size_t> begins{0};
  const auto is_entry = [&](std::size_t at) {
    return text[at] == '-' && (at + 1 == text.size() || text.find_first_of(" \t\r\n", at + 1) == at + 1);
  };
  for (std::size_t at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at + 1))
    if (at + 1 < text.size() && is_entry(at + 1)) begins.push_back(at + 1);
  if (begins.size() > kMaxNodes) return std::nullopt;
  begins.push_back(text.size());

  YamlNode root;
  root.kind = YamlNode::Kind::kSequence;
  for (std::size_t i = 0; i + 1 < begins.size(); ++i) {
    source.begin = begins[i];
    source.text = text.substr(0, begins[i + 1]);
    YamlNode lost;
    lost.where = source.at(source.begin);
    try {
      const YamlNode part = parse(source, /*by_entry=*/true);
      if (part.kind == YamlNode::Kind::kSequence && is_entry(source.begin))
        root.items.insert(root.items.end(), part.items.begin(), part.items.end());
      else if (part.kind != YamlNode::Kind::kNull)
        return std::nullopt;
    } catch (const YAML::Exception& error) {
      if (!is_entry(source.begin)) return std::nullopt;
      lost.fault = not_yaml(error, source);
      root.items.push_back(std::move(lost));
    }
  }
  return root;
}

}  // namespace

YamlNode parse_yaml(std::string_view text, const std::string& name, ExitCode code, bool by_entry) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  Source source{.text = text, .name = name, .code = code};
  // yaml-cpp reads other encodings by guess, and byte 4 as the end of the file.
  const auto control = std::find_if(text.begin(), text.end(), [](unsigned char c) {
    return (c < 0x20 && c != '\t' && c != '\n' && c != '\r');
  });
  if (control != text.end())
    throw Error(code, "a control character", source.at(static_cast<std::size_t>(control - text.begin())),
                "save the file as UTF-8 text; in double quotes write \\n or \\u0001");
  if (valid_utf8(std::string(text)) != text)
    throw Error(code, "not UTF-8 text", name, "save the file as UTF-8");

  try {
    return parse(source, by_entry);
  } catch (const YAML::Exception& error) {
    // A line break behind an open quote makes yaml-cpp tell where it opens.
    if (error.msg == YAML::ErrorMsg::EOF_IN_SCALAR && !text.ends_with('\n'))
      return parse_yaml(std::string(text) + '\n', name, code, by_entry);
    std::optional<YamlNode> entries;
    if (by_entry) entries = parse_entries(source);
    if (!entries) throw not_yaml(error, source);
    return *std::move(entries);
  }
}

bool is_text(const YamlNode& scalar) {
  return !scalar.plain || resolved(scalar.text).empty();
}

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMapping:
      return "a mapping";
    case YamlNode::Kind::kScalar:
      break;
  }
  return fmt::format("{} {}", is_text(node) ? "the text" : resolved(node.text), in_quotes(node.text));
}

}  // namespace xdit::config
