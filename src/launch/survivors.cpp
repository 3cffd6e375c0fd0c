#include "launch/survivors.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "parallel/plan.h"

namespace xdit::launch {
namespace {

constexpr std::int64_t kOften = 2;  // failures of one that are no chance any more

std::string list_of(const std::vector<std::int64_t>& devices, std::size_t count) {
  std::string list;
  for (std::size_t i = 0; i < count; ++i) list += fmt::format("{},", devices[i]);
  if (count > 1) list.pop_back();
  return list;
}

}  // namespace

Survivors::Survivors(const config::RunSpec& spec, const parallel::Machine& machine) {
  if (spec.runtime.device == config::Device::kCpu) return;
  try {
    for (const std::int64_t device : parallel::devices_of(spec.parallel.gpus, machine, false))
      wanted_.push_back({device, machine.gpus.at(static_cast<std::size_t>(device))});
  } catch (const std::exception&) {  // not there from the beginning: the plan says so
    wanted_.clear();
  }
}

std::string Survivors::name_of(const std::string& uuid) const {
  const auto found =
      std::find_if(wanted_.begin(), wanted_.end(), [&](const Wanted& one) { return one.gpu.uuid == uuid; });
  return found == wanted_.end() ? uuid : fmt::format("GPU {} ({}, {})", found->number, found->gpu.name, uuid);
}

std::string Survivors::failed(const Culprit& culprit) {
  const std::string who = culprit.gpu.empty() ? fmt::format("rank {}", culprit.rank) : culprit.gpu;
  const std::int64_t times = ++failures_[who];
  if (times < kOften) return {};
  if (culprit.gpu.empty()) return fmt::format("{} has failed {} times", who, times);
  if (!out_.insert(culprit.gpu).second) return {};
  return fmt::format("{} has failed {} times: it is left out where a smaller grid exists",
                     name_of(culprit.gpu), times);
}

std::vector<std::string> Survivors::lost(const parallel::Machine& machine) {
  std::vector<std::string> lines;
  for (const Wanted& one : wanted_) {
    const bool there = std::any_of(machine.gpus.begin(), machine.gpus.end(),
                                   [&](const parallel::Gpu& gpu) { return gpu.uuid == one.gpu.uuid; });
    if (!there && out_.insert(one.gpu.uuid).second)
      lines.push_back(name_of(one.gpu.uuid) + " is lost: it is left out where a smaller grid exists");
  }
  return lines;
}

config::RunSpec Survivors::take(config::RunSpec spec, const Models& models,
                                const parallel::Machine& machine) const {
  if (out_.empty()) return spec;
  std::vector<std::int64_t> left;
  for (const Wanted& one : wanted_) {
    if (out_.contains(one.gpu.uuid)) continue;
    const auto found = std::find_if(machine.gpus.begin(), machine.gpus.end(),
                                    [&](const parallel::Gpu& gpu) { return gpu.uuid == one.gpu.uuid; });
    if (found != machine.gpus.end()) left.push_back(found - machine.gpus.begin());
  }
  config::RunSpec smaller = spec;
  for (std::size_t count = left.size(); count > 0; --count) {
    smaller.parallel.gpus = list_of(left, count);
    try {
      static_cast<void>(parallel::make_plan(smaller, models.model, machine));
      return smaller;
    } catch (const Error&) {  // of no use
    }
  }
  return spec;
}

}  // namespace xdit::launch
