#include "config/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>

#include "config/values.h"
#include "core/nearest.h"

namespace xdit::config {
namespace {

constexpr std::string_view kPrefix = "XDIT_GEN_";
constexpr std::int64_t kMaxPictures = 1'000'000;

// "--num-inference-steps" -> "NUM_INFERENCE_STEPS", "sampling.steps" -> "SAMPLING__STEPS".
std::string variable(std::string_view name) {
  std::string upper;
  while (name.starts_with('-')) name.remove_prefix(1);
  for (const unsigned char c : name)
    upper += c == '.' ? "__" : std::string(1, c == '-' ? '_' : static_cast<char>(std::toupper(c)));
  return upper;
}

// Every variable that sets `key`, without the prefix.
std::vector<std::string> variables(const Key& key) {
  std::vector<std::string> names{variable(key.path)};
  if (!key.flag.empty()) names.insert(names.begin(), variable(key.flag));
  for (const std::string& alias : split(key.aliases, ' '))
    if (alias.starts_with("--")) names.push_back(variable(alias));
  return names;
}

const Key& require_key(std::string_view path, const std::string& where) {
  const Key* key = find_key(path);
  if (key != nullptr) return *key;
  const std::string near = nearest_key(path);
  std::string fix = near.empty() ? "--help lists them; --dry-run prints them all" : "--set " + near + "=...";
  if (path == "size" || path == "image.size") fix = "image.width and image.height, or --size 1024x1024";
  throw Error(ExitCode::kUsage, fmt::format("unknown key {}", in_quotes(path)), where, fix);
}

// The setting that wins, for its place in an error.
Setting origin(std::span<const Layer> layers, std::string_view key) {
  const Setting* found = winner(layers, key);
  return found != nullptr ? *found : Setting{.key = {}, .values = {}, .where = {}, .code = ExitCode::kUsage};
}

// What values say together.
void check_together(const RunSpec& spec, std::span<const Layer> layers, std::vector<std::string>& warnings) {
  const auto prompts = static_cast<std::int64_t>(spec.prompts.size());
  const auto seeds = static_cast<std::int64_t>(spec.sampling.seeds.size());
  const Setting count = origin(layers, "image.count");
  if (prompts > kMaxPictures / seeds / spec.image.count)
    throw Error(count.code,
                fmt::format("{} prompts x {} seeds x {} are more than {} pictures", prompts, seeds,
                            spec.image.count, kMaxPictures),
                count.where, "several runs");
  const std::uint64_t highest = *std::max_element(spec.sampling.seeds.begin(), spec.sampling.seeds.end());
  if (highest > std::numeric_limits<std::uint64_t>::max() - static_cast<std::uint64_t>(spec.image.count - 1))
    throw Error(count.code, fmt::format("seed {} + {} does not fit 64 bits", highest, spec.image.count - 1),
                count.where, "a smaller seed");
  if (!spec.negative_prompt.value_or("").empty() && spec.sampling.cfg_scale <= 1)
    warnings.emplace_back("the negative prompt has no effect without --cfg-scale > 1");
}

}  // namespace

std::string nearest_key(std::string_view name, const std::function<bool(const Key&)>& among) {
  const bool whole = name.find('.') != std::string_view::npos;
  std::vector<std::string> names;
  std::vector<std::string_view> paths;
  for (const Key& key : keys()) {
    if (among && !among(key)) continue;
    paths.push_back(key.path);
    names.emplace_back(whole ? key.path : key.path.substr(key.path.find('.') + 1));
  }
  const auto found = std::find(names.begin(), names.end(), nearest(name, names));
  return found == names.end() ? "" : std::string(paths[static_cast<std::size_t>(found - names.begin())]);
}

Layer read_environment(const char* const* environment) {
  Layer layer;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    const std::size_t equals = std::min(entry.find('='), entry.size());
    const std::string name(entry.substr(0, equals));
    if (!name.starts_with(kPrefix) || equals == entry.size()) continue;
    const Key* key = nullptr;
    std::vector<std::string> all;
    for (const Key& candidate : keys())
      for (const std::string& known : variables(candidate)) {
        all.push_back(std::string(kPrefix) + known);
        if (all.back() == name) key = &candidate;
      }
    if (key == nullptr)
      throw Error(ExitCode::kUsage, "unknown variable in the environment", in_quotes(name),
                  nearest(name, all));
    for (const Setting& other : layer)
      if (other.key == key->path)
        throw Error(ExitCode::kUsage, fmt::format("{} and {} both set {}", other.where, name, key->path), {},
                    "unset " + name);
    layer.push_back({.key = std::string(key->path),
                     .values = {std::string(entry.substr(equals + 1))},
                     .where = name,
                     .code = ExitCode::kUsage});
  }
  return layer;
}

Setting parse_assignment(std::string_view assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos)
    throw Error(ExitCode::kUsage, fmt::format("expected key=value, found {}", in_quotes(assignment)), "--set",
                "--set sampling.steps=20");
  const Key& key = require_key(assignment.substr(0, equals), "--set");
  return {.key = std::string(key.path),
          .values = {std::string(assignment.substr(equals + 1))},
          .where = fmt::format("--set {}", key.path),
          .code = ExitCode::kUsage};
}

Layer parse_size(const std::string& size, const std::string& where, const std::string& fix) {
  const std::size_t x = size.find_first_of("xX");
  if (x == std::string::npos || x == 0 || x + 1 == size.size() || x != size.find_last_of("xX"))
    throw Error(ExitCode::kUsage, fmt::format("expected WIDTHxHEIGHT, found {}", in_quotes(size)), where,
                fix);
  const auto pixels = [&](const char* key, std::string value) {
    return Setting{.key = key, .values = {std::move(value)}, .where = where, .code = ExitCode::kUsage};
  };
  return {pixels("image.width", size.substr(0, x)), pixels("image.height", size.substr(x + 1))};
}

const Setting* winner(std::span<const Layer> layers, std::string_view key) {
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer)
    for (auto setting = layer->rbegin(); setting != layer->rend(); ++setting)
      if (setting->key == key) return &*setting;
  return nullptr;
}

Resolved resolve(std::span<const Layer> layers, const std::function<std::uint64_t()>& draw_seed) {
  Resolved resolved;
  RunSpec& spec = resolved.spec;
  for (const Layer& layer : layers)
    for (const Setting& setting : layer) {
      const Key& key = require_key(setting.key, setting.where);
      key.set(spec, setting, key);
    }
  if (spec.prompts.empty())
    throw Error(ExitCode::kUsage, "no prompt", {}, "-p \"a lighthouse at dawn\", or xdit-gen --help");
  if (spec.model.path.empty())
    throw Error(ExitCode::kUsage, "no model", {}, "-m DIR, e.g. -m models/FLUX.1-dev, or xdit-gen --help");

  const auto draw = [&] {
    resolved.drawn_seeds.push_back(draw_seed());
    return resolved.drawn_seeds.back();
  };
  if (const Setting* seed = winner(layers, "sampling.seed"))
    spec.sampling.seeds = read_seeds(*find_key("sampling.seed"), *seed, draw);
  else
    spec.sampling.seeds = {draw()};
  check_together(spec, layers, resolved.warnings);
  return resolved;
}

}  // namespace xdit::config
