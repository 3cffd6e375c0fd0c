#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "config/settings.h"
#include "config/sweep_profile.h"
#include "config/values.h"
#include "config/yaml.h"
#include "core/file.h"
#include "core/nearest.h"

namespace xdit::config {
namespace {

namespace fs = std::filesystem;
using Kind = YamlNode::Kind;

constexpr std::size_t kMaxBytes = std::size_t{1} << 20U;
constexpr std::size_t kMaxPoints = 1000;

bool needs_plain(const Key& key) {
  return key.type == kInteger || key.type == kSize || key.type == kNumber || key.type == kBoolean ||
         key.type == kAutoInteger || key.type == kAutoNumber;
}

// Names that may stand in `section` ("" is the top level), in the order of the table.
std::vector<std::string> names_in(std::string_view section) {
  std::vector<std::string> names;
  for (const Key& key : keys()) {
    const std::size_t dot = key.path.find('.');
    const bool nested = dot != std::string_view::npos;
    const std::string name(section.empty() ? key.path.substr(0, dot) : key.path.substr(nested ? dot + 1 : 0));
    const bool here = section.empty() || (nested && key.path.substr(0, dot) == section);
    if (here && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

// One scalar for `key`, typed as strictly as the key asks.
std::string scalar(const Key& key, const YamlNode& node, ExitCode code) {
  const Setting here{.key = std::string(key.path), .values = {}, .where = node.where, .code = code};
  if (node.kind != Kind::kScalar) refuse(key, here, describe(node));
  const bool text = key.type == kText || key.type == kTexts;
  if (text && !is_text(node)) refuse(key, here, describe(node), fmt::format("\"{}\"", node.text));
  if (needs_plain(key) && !node.plain && node.text != "auto") refuse(key, here, describe(node));
  return node.text;
}

class Reader {
 public:
  /// `axes`: where sweep: goes; nullptr where there is none.
  Reader(ExitCode code, Layer& layer, std::vector<Axis>* axes) : code_(code), layer_(layer), axes_(axes) {}

  void read_top(const YamlNode& root) {
    if (root.kind == Kind::kNull) return;
    if (root.kind != Kind::kMapping)
      throw Error(code_,
                  fmt::format("expected keys such as sampling: {{steps: 20}}, found {}", describe(root)),
                  root.where);
    const std::vector<std::string> sections = names_in("");
    for (std::size_t i = 0; i < root.keys.size(); ++i) {
      const YamlNode& name = root.keys[i];
      if (find_key(name.text) != nullptr) {
        if (name.text.find('.') != std::string::npos) unknown(name, "", sections);
        read_value(name.text, root.items[i]);
      } else if (std::find(sections.begin(), sections.end(), name.text) != sections.end()) {
        read_section(name, root.items[i]);
      } else if (name.text == "sweep") {
        if (axes_ == nullptr)
          throw Error(code_, "sweep: is not part of generating pictures", name.where,
                      "xdit-gen sweep, or remove the section");
        read_axes(root.items[i]);
      } else {
        unknown(name, "", sections);
      }
    }
  }

 private:
  void read_section(const YamlNode& section, const YamlNode& node) {
    if (node.kind != Kind::kMapping)
      throw Error(code_, fmt::format("{}: expected a mapping, found {}", section.text, describe(node)),
                  node.where, fmt::format("{}: {{{}: ...}}", section.text, names_in(section.text).front()));
    for (std::size_t i = 0; i < node.keys.size(); ++i) {
      const std::string path = section.text + "." + node.keys[i].text;
      if (find_key(path) == nullptr) unknown(node.keys[i], section.text, names_in(section.text));
      read_value(path, node.items[i]);
    }
  }

  void read_value(const std::string& path, const YamlNode& node) {
    layer_.push_back(setting(*find_key(path), node));
  }

  [[nodiscard]] Setting setting(const Key& key, const YamlNode& node) const {
    Setting setting{.key = std::string(key.path), .values = {}, .where = node.where, .code = code_};
    if (key.list && node.kind == Kind::kSequence)
      for (const YamlNode& item : node.items) setting.values.push_back(scalar(key, item, code_));
    else if (node.kind != Kind::kNull || key.path != "negative_prompt")  // none is not ""
      setting.values.push_back(scalar(key, node, code_));
    return setting;
  }

  void read_axes(const YamlNode& sweep) {
    if (sweep.kind != Kind::kMapping || sweep.keys.empty())
      throw Error(code_, fmt::format("sweep: expected keys with lists of values, found {}", describe(sweep)),
                  sweep.where, "sweep: {parallel.gpus: [1, 2, 4]}");
    std::size_t points = 1;
    for (std::size_t i = 0; i < sweep.keys.size(); ++i) {
      axes_->push_back(axis(sweep.keys[i], sweep.items[i]));
      points *= axes_->back().values.size();
      if (points > kMaxPoints)
        throw Error(code_, fmt::format("sweep: more than {} points", kMaxPoints), sweep.keys[i].where,
                    "several sweeps");
    }
  }

  [[nodiscard]] Axis axis(const YamlNode& name, const YamlNode& list) const {
    const Key* key = find_key(name.text);
    if (key == nullptr) {
      const std::string fix = nearest_key(name.text);
      throw Error(code_, fmt::format("unknown key {} in sweep", in_quotes(name.text)), name.where,
                  fix.empty() ? "any key of a profile, as parallel.gpus: [1, 2]" : fix + ": [...]");
    }
    if (key->path.starts_with("output."))
      throw Error(code_, fmt::format("{} cannot be swept: each point has its own folder", key->path),
                  name.where, "output: in the profile itself");
    if (list.kind != Kind::kSequence || list.items.empty())
      throw Error(code_,
                  fmt::format("sweep: {}: expected a list of values, found {}", key->path,
                              list.kind == Kind::kSequence ? "an empty list" : describe(list)),
                  list.where, fmt::format("{}: [...]", key->path));
    Axis axis{.key = std::string(key->path), .values = {}};
    for (const YamlNode& item : list.items) {
      Setting value = setting(*key, item);
      RunSpec scratch;
      key->set(scratch, value, *key);
      for (const Setting& other : axis.values)
        if (other.values == value.values)
          throw Error(code_, fmt::format("sweep: {}: a value twice, first at {}", key->path, other.where),
                      value.where, "remove one of them");
      axis.values.push_back(std::move(value));
    }
    return axis;
  }

  [[noreturn]] void unknown(const YamlNode& name, std::string_view section,
                            const std::vector<std::string>& known) {
    std::string fix = nearest(name.text, known);
    for (const Key& key : keys()) {  // a known name in the wrong place
      const std::size_t dot = key.path.find('.');
      if (dot != std::string_view::npos && (key.path.substr(dot + 1) == name.text || key.path == name.text))
        fix = fmt::format("{}: {{{}: ...}}", key.path.substr(0, dot), key.path.substr(dot + 1));
    }
    throw Error(code_,
                fmt::format("unknown key {}{}: expected one of {}", in_quotes(name.text),
                            section.empty() ? "" : fmt::format(" in {}", section), fmt::join(known, ", ")),
                name.where, fix);
  }

  ExitCode code_;
  Layer& layer_;
  std::vector<Axis>* axes_;
};

Layer read_settings(const fs::path& file, ExitCode code, std::vector<Axis>* axes = nullptr) {
  Layer layer;
  const YamlNode root = parse_yaml(read_file(file, code, kMaxBytes), file.string(), code);
  Reader(code, layer, axes).read_top(root);
  return layer;
}

// Files that stand beside the profile are taken from there.
void find_beside(const fs::path& file, std::vector<Setting>& settings) {
  for (Setting& setting : settings) {
    if (setting.key != "model.path" && setting.key != "model.base" && setting.key != "model.tokenizers" &&
        setting.key != "model.refiner")
      continue;
    const fs::path beside = file.parent_path() / setting.values.front();  // an absolute path stays itself
    std::error_code ignored;
    if (!setting.values.front().empty() && fs::exists(beside, ignored)) setting.values = {beside.string()};
  }
}

}  // namespace

Layer read_profile(const fs::path& file) {
  Layer layer = read_settings(file, ExitCode::kProfile);
  find_beside(file, layer);
  return layer;
}

SweepProfile read_sweep_profile(const fs::path& file) {
  SweepProfile profile;
  profile.base = read_settings(file, ExitCode::kProfile, &profile.axes);
  if (profile.axes.empty())
    throw Error(ExitCode::kProfile, "no sweep: section", file.string(),
                "sweep: {parallel.gpus: [1, 2, 4]}, or xdit-gen --profile");
  find_beside(file, profile.base);
  for (Axis& axis : profile.axes) find_beside(file, axis.values);
  return profile;
}

std::vector<Layer> points_of(const std::vector<Axis>& axes) {
  std::vector<Layer> points{{}};
  for (const Axis& axis : axes) {
    std::vector<Layer> longer;
    longer.reserve(points.size() * axis.values.size());
    for (const Layer& point : points)
      for (const Setting& value : axis.values) {
        longer.push_back(point);
        longer.back().push_back(value);
      }
    points = std::move(longer);
  }
  return points;
}

Layer read_model_settings(const fs::path& file) {
  Layer layer = read_settings(file, ExitCode::kModel);
  for (const Setting& setting : layer)
    if (!setting.key.starts_with("image.") && !setting.key.starts_with("sampling."))
      throw Error(ExitCode::kModel, fmt::format("{}: a model sets image and sampling only", setting.key),
                  setting.where, "remove it, or use the file with --profile");
  return layer;
}

}  // namespace xdit::config
