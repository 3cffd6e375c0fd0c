#include "cli/batch_jobs.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "cli/batch_places.h"
#include "config/settings.h"

namespace xdit::cli {
namespace {

using config::RunSpec;

// 32 bits, short enough to type again. splitmix64 (Steele et al. 2014).
std::uint64_t drawn(std::uint64_t from, std::uint64_t line, std::uint64_t nth) {
  std::uint64_t z = from + (line * 1024 + nth + 1) * 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
  return (z ^ (z >> 31U)) >> 32U;
}

// What pictures of one variant have in common.
RunSpec shape_of(RunSpec spec) {
  spec.prompts = {""};
  spec.sampling.seeds = {0};
  spec.image.count = 1;
  return spec;
}

// What pictures of one launch have in common: all that a plan follows from. Where rows or bands may be of the
// step before, that is the steps, too.
RunSpec launch_of(RunSpec shape) {
  const RunSpec::Parallel& asked = shape.parallel;
  const bool approximate = asked.allow == config::Allow::kApproximate;
  if (asked.patch == config::Patch::kDisplaced || asked.pipefusion.value_or(approximate ? 2 : 1) > 1)
    return shape;
  RunSpec::Sampling same;
  same.cfg_scale = shape.sampling.cfg_scale > 1 ? 2 : 1;
  same.max_sequence_length = shape.sampling.max_sequence_length;
  shape.sampling = same;
  shape.negative_prompt.reset();
  return shape;
}

// Pictures of one variant, by prompt; both in order of appearance.
struct Group {
  RunSpec shape;
  std::size_t launch;
  std::map<std::string, std::size_t> place;
  std::vector<std::vector<config::Picture>> by_prompt;

  void add(const config::Picture& picture) {
    const auto [found, fresh] = place.emplace(picture.prompt, by_prompt.size());
    if (fresh) by_prompt.emplace_back();
    by_prompt[found->second].push_back(picture);
  }
};

}  // namespace

std::vector<BatchEntry> settle(const std::vector<config::BatchLine>& lines, const Prepared& run,
                               const output::Manifest& manifest,
                               std::vector<output::Manifest::Place>& places) {
  std::vector<config::Layer> layers = run.layers;
  layers.emplace_back();
  const auto fill = [&](BatchEntry& entry, const config::BatchLine& line, std::size_t place) {
    layers.back() = line.settings;
    if (config::winner(layers, "prompt")->where.empty())
      throw Error(ExitCode::kUsage, "no prompt", line.where, R"({"prompt": "a fox"}, or -p for all)");
    std::uint64_t nth = 0;
    const auto draw = [&] { return drawn(manifest.begin().seed, place + 1, nth++); };
    entry.spec = resolve_for(run.models(), layers, draw).spec;
    entry.pictures = config::pictures(entry.spec);
  };
  std::vector<BatchEntry> entries;
  std::vector<output::Manifest::Place> asked;
  entries.reserve(lines.size());
  asked.reserve(lines.size());
  for (const config::BatchLine& line : lines) {
    BatchEntry& entry = entries.emplace_back(BatchEntry{.line = line.where});
    entry.fault = line.fault;
    try {
      if (!entry.fault) fill(entry, line, asked.size());
    } catch (const Error& error) {
      entry.fault = error;
    }
    asked.push_back({mark_of(line), std::max<std::int64_t>(1, std::ssize(entry.pictures))});
  }
  places = manifest.places();
  std::vector<bool> made;
  std::int64_t index = 0;
  for (const output::Manifest::Place& place : places) {
    made.push_back(manifest.recorded(index, place.pictures));
    index += place.pictures;
  }
  const std::vector<std::size_t> at = places_of(asked, places, made);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (!entries[i].fault && at[i] != i) fill(entries[i], lines[i], at[i]);
    places.resize(std::max(places.size(), at[i] + 1));
    places[at[i]] = asked[i];
  }
  std::vector<std::int64_t> before{0};
  for (const output::Manifest::Place& place : places) before.push_back(before.back() + place.pictures);
  for (std::size_t i = 0; i < entries.size(); ++i)
    for (config::Picture& picture : entries[i].pictures) picture.index += before[at[i]];
  return entries;
}

std::vector<RunSpec> group(const std::vector<BatchEntry>& entries, std::size_t prompts,
                           const std::function<bool(std::int64_t index)>& wanted) {
  std::vector<Group> groups;
  std::map<std::string, std::size_t> known, launches;  // by settings, as text
  for (const BatchEntry& entry : entries) {
    if (entry.fault) continue;
    const RunSpec shape = shape_of(entry.spec);
    const std::string settings = config::to_yaml(shape);
    for (const config::Picture& picture : entry.pictures) {
      if (!wanted(picture.index)) continue;
      const auto [found, fresh] = known.emplace(settings, groups.size());
      if (fresh) {
        const std::size_t launch =
            launches.emplace(config::to_yaml(launch_of(shape)), launches.size()).first->second;
        groups.push_back({.shape = shape, .launch = launch, .place = {}, .by_prompt = {}});
      }
      groups[found->second].add(picture);
    }
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group& a, const Group& b) { return a.launch < b.launch; });
  std::vector<RunSpec> specs;
  std::size_t listed = 0;  // prompts of the last
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const Group& one = groups[g];
    if (g == 0 || groups[g - 1].launch != one.launch) listed = prompts;
    for (std::size_t i = 0; i < one.by_prompt.size(); ++i) {
      if (listed == prompts) specs.push_back(one.shape);
      RunSpec& spec = specs.back();
      if (i == 0 || listed == prompts)
        spec.variants.push_back({one.shape.sampling, one.shape.negative_prompt});
      listed = listed % prompts + 1;
      for (const config::Picture& picture : one.by_prompt[i]) {
        spec.listed.push_back(picture);
        spec.listed.back().variant = spec.variants.size() - 1;
      }
    }
  }
  return specs;
}

}  // namespace xdit::cli
