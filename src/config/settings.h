#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_spec.h"
#include "core/error.h"

namespace xdit::config {

/// One value that a source gives to a profile key, still as text. Lists hold several values.
struct Setting {
  std::string key;                  ///< "sampling.steps"
  std::vector<std::string> values;  ///< one, unless the key takes a list
  std::string where;  ///< "run.yaml:4:12", "--steps", "XDIT_GEN_STEPS", "default of FLUX.1-schnell"
  ExitCode code;      ///< of a fault in it: kProfile for a profile, else kUsage
};
using Layer = std::vector<Setting>;

/// A documented key: the single table behind profiles, environment, --set, flags, --dry-run and the help.
struct Key {
  std::string_view path;     ///< "sampling.steps"
  std::string_view flag;     ///< "--steps", or "" when only --set reaches it
  std::string_view aliases;  ///< further flags, "-W" or "--num-inference-steps", or ""
  std::string_view type;     ///< as errors say it: "an integer", "text", "one of", ...
  std::string_view allowed;  ///< "1..1000" or "bf16|fp16|fp32"; checks read it too
  std::string_view meaning;  ///< one line
  bool list;                 ///< takes several values
  void (*set)(RunSpec& spec, const Setting& setting,
              const Key& key);                                ///< checks the value; throws setting.code
  std::string (*print)(const RunSpec& spec, const Key& key);  ///< the value as YAML
};
[[nodiscard]] std::span<const Key> keys();
[[nodiscard]] const Key* find_key(std::string_view path);  ///< or nullptr
/// The path that `name`, with or without its section, was likely to be; "" where none is near.
[[nodiscard]] std::string nearest_key(std::string_view name,
                                      const std::function<bool(const Key&)>& among = {});

/// Reads a YAML profile strictly: no anchors, aliases, tags, duplicate or unknown keys; at most 1 MiB, depth
/// 32, 10,000 nodes. Faults are Error(kProfile) with file:line:column. Relative model.{path,base,tokenizers}
/// that exist beside the profile are taken from there.
[[nodiscard]] Layer read_profile(const std::filesystem::path& file);

/// The same of a model's own defaults (xdit-gen.yaml in its folder): image and sampling keys only,
/// Error(kModel).
[[nodiscard]] Layer read_model_settings(const std::filesystem::path& file);

/// XDIT_GEN_* variables: XDIT_GEN_STEPS (by flag) or XDIT_GEN_SAMPLING__STEPS (by key). Unknown ones are
/// errors.
[[nodiscard]] Layer read_environment(const char* const* environment);

/// "key.path=value" of --set.
[[nodiscard]] Setting parse_assignment(std::string_view assignment);

/// "1024x768" as width and height. Error(kUsage) with the fix.
[[nodiscard]] Layer parse_size(const std::string& size, const std::string& where, const std::string& fix);

/// The setting of `key` that wins over all others, or nullptr.
[[nodiscard]] const Setting* winner(std::span<const Layer> layers, std::string_view key);

struct Resolved {
  RunSpec spec;
  std::vector<std::uint64_t> drawn_seeds;  ///< of spec.sampling.seeds, those that stood as -1: to be printed
  std::vector<std::string> warnings;
};

/// Merges layers, later ones win, and checks every value and what values say together.
/// `draw_seed` is called once for each seed of -1 (the default). A missing prompt or model is Error(kUsage)
/// that says what to type.
[[nodiscard]] Resolved resolve(std::span<const Layer> layers,
                               const std::function<std::uint64_t()>& draw_seed);

}  // namespace xdit::config
