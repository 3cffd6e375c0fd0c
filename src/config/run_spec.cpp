#include "config/run_spec.h"

#include <fmt/format.h>

#include <utility>

#include "config/settings.h"

namespace xdit::config {

std::vector<Picture> pictures(const RunSpec& spec) {
  if (!spec.listed.empty()) return spec.listed;
  std::vector<Picture> all;
  for (const std::string& prompt : spec.prompts)
    for (const std::uint64_t seed : spec.sampling.seeds)
      for (std::int64_t i = 0; i < spec.image.count; ++i)
        all.push_back({.index = static_cast<std::int64_t>(all.size()),
                       .prompt = prompt,
                       .seed = seed + static_cast<std::uint64_t>(i)});
  return all;
}

std::vector<RunSpec> variants_of(const RunSpec& spec) {
  RunSpec one = spec;
  one.listed.clear();
  const std::vector<Variant> variants = std::exchange(one.variants, {});
  std::vector<RunSpec> all;
  for (const Variant& variant : variants) {
    one.sampling = variant.sampling;
    one.negative_prompt = variant.negative_prompt;
    all.push_back(one);
  }
  if (all.empty()) all.push_back(std::move(one));
  return all;
}

std::string to_yaml(const RunSpec& spec) {
  std::string text;
  std::string_view open;  // section
  for (const Key& key : keys()) {
    const std::size_t dot = key.path.find('.');
    const bool nested = dot != std::string_view::npos;
    if (nested && key.path.substr(0, dot) != open) text += fmt::format("{}:\n", key.path.substr(0, dot));
    open = nested ? key.path.substr(0, dot) : "";
    const std::string value = key.print(spec, key);
    text += fmt::format("{}{}:{}{}\n", nested ? "  " : "", key.path.substr(nested ? dot + 1 : 0),
                        value.starts_with('\n') ? "" : " ", value);
  }
  return text;
}

}  // namespace xdit::config
