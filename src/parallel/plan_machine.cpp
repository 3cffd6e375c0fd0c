#include "parallel/plan_machine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>

#include "core/error.h"
#include "core/json.h"

namespace xdit::parallel {

NLOHMANN_JSON_SERIALIZE_ENUM(Link, {{Link::kNone, "none"},
                                    {Link::kFar, "sockets"},
                                    {Link::kNear, "socket"},
                                    {Link::kNvlink, "nvlink"}})
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Rates, product, attention, convolution, float32, memory, peer, host, read)

namespace {

constexpr std::int64_t kMostGpus = 64;

struct KnownGpu {
  std::string_view key;
  std::string_view name;  // as the driver's begins
  std::uint64_t memory;
  std::int64_t capability;
  Rates rates;
};

// Fitted to runs of FLUX and SDXL on an H100 and an H200 (700 W), which differ in their memory; peers and
// host as measured there. An A100's: what its data sheet says, times the share of its own that an H100
// reaches.
constexpr std::array kKnown{
    KnownGpu{"h100",
             "NVIDIA H100 80GB HBM3",
             85'520'809'984,
             90,
             {7.5e14, 6.0e14, 4.0e14, 3.0e13, 3.35e12, 3.26e11, 5.0e10, 1.9e10}},
    KnownGpu{"h200",
             "NVIDIA H200",
             150'754'820'096,
             90,
             {7.5e14, 6.0e14, 4.0e14, 3.0e13, 4.80e12, 3.26e11, 5.0e10, 1.9e10}},
    KnownGpu{"a100",
             "NVIDIA A100-SXM4-80GB",
             85'899'345'920,
             80,
             {2.37e14, 1.89e14, 1.26e14, 8.7e12, 2.04e12, 2.17e11, 2.5e10, 1.9e10}},
};

const KnownGpu* known(std::string_view name) {
  const auto found = std::find_if(kKnown.begin(), kKnown.end(),
                                  [&](const KnownGpu& gpu) { return name.starts_with(gpu.name); });
  return found == kKnown.end() ? nullptr : &*found;
}

std::optional<Machine> named_machine(std::string_view text) {
  for (const KnownGpu& gpu : kKnown) {
    if (!text.starts_with(gpu.key)) continue;
    const std::string_view rest = text.substr(gpu.key.size());
    if (!rest.empty() && rest.front() != 'x') continue;
    const std::string_view count = rest.empty() ? "1" : rest.substr(1);
    std::int64_t gpus = 0;
    const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), gpus);
    if (error != std::errc{} || end != count.data() + count.size() || gpus < 1 || gpus > kMostGpus)
      return std::nullopt;
    const auto number = static_cast<std::size_t>(gpus);
    constexpr std::uint64_t kHostBytes = 256'000'000'000;  // a GPU's share
    return Machine{.gpus = std::vector<Gpu>(number, {std::string(gpu.name), "", gpu.memory, gpu.capability}),
                   .host_memory = kHostBytes * number,
                   .cores = 16 * gpus};
  }
  return std::nullopt;
}

void check(const Machine& machine, const std::string& where) {
  const std::size_t gpus = machine.gpus.size();
  const auto wide = [&](const std::vector<Link>& row) { return row.size() == gpus; };
  const auto has_memory = [](const Gpu& gpu) { return gpu.memory > 0 && gpu.memory <= INT64_MAX; };
  if (gpus > kMostGpus || !std::all_of(machine.gpus.begin(), machine.gpus.end(), has_memory) ||
      (!machine.links.empty() && machine.links.size() != gpus) ||
      !std::all_of(machine.links.begin(), machine.links.end(), wide) || machine.cores < 1)
    throw Error(ExitCode::kProfile, "no machine: GPUs, their memory and their links do not fit each other",
                where, "xdit-gen doctor --json");
}

// Parts of `gpus` that are connected by links of `level` at least, the largest first.
std::vector<std::vector<std::int64_t>> islands(const Machine& machine, std::vector<std::int64_t> gpus,
                                               Link level) {
  std::vector<std::vector<std::int64_t>> all;
  while (!gpus.empty()) {
    std::vector<std::int64_t> island{gpus.front()};
    gpus.erase(gpus.begin());
    for (std::size_t i = 0; i < island.size(); ++i)
      std::erase_if(gpus, [&, from = static_cast<std::size_t>(island[i])](std::int64_t to) {
        if (machine.links[from][static_cast<std::size_t>(to)] < level) return false;
        island.push_back(to);
        return true;
      });
    std::sort(island.begin(), island.end());
    all.push_back(std::move(island));
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
  return all;
}

}  // namespace

void to_json(nlohmann::json& json, const Gpu& gpu) {
  json = {{"name", gpu.name}, {"uuid", gpu.uuid}, {"memory", gpu.memory}, {"capability", gpu.capability}};
}

void from_json(const nlohmann::json& json, Gpu& gpu) {
  json.at("name").get_to(gpu.name);
  json.at("uuid").get_to(gpu.uuid);
  gpu.memory = static_cast<std::uint64_t>(integer_of(json.at("memory")));
  if (json.contains("capability")) gpu.capability = integer_of(json.at("capability"));
}

void to_json(nlohmann::json& json, const Machine& machine) {
  json = {{"gpus", machine.gpus},
          {"peer_access", machine.peer_access},
          {"host_memory", machine.host_memory},
          {"cores", machine.cores},
          {"links", machine.links},
          {"measured", machine.measured}};
}

void from_json(const nlohmann::json& json, Machine& machine) {
  json.at("gpus").get_to(machine.gpus);
  json.at("peer_access").get_to(machine.peer_access);
  machine.host_memory = static_cast<std::uint64_t>(integer_of(json.at("host_memory")));
  machine.cores = integer_of(json.at("cores"));
  json.at("links").get_to(machine.links);
  json.at("measured").get_to(machine.measured);
}

std::vector<std::string> known_gpus() {
  std::vector<std::string> names;
  names.reserve(kKnown.size());
  for (const KnownGpu& gpu : kKnown) names.emplace_back(gpu.key);
  return names;
}

Machine read_machine(const std::string& text) {
  if (std::optional<Machine> machine = named_machine(text)) return *std::move(machine);
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(text, ignored))
    throw Error(
        ExitCode::kUsage,
        fmt::format(
            "no machine {}: neither a file that doctor --json wrote, nor {}, alone or with a number of "
            "GPUs behind (x1 to x{})",
            text, fmt::join(known_gpus(), ", "), kMostGpus),
        "--machine", "--machine h100x8");
  constexpr std::size_t kMostBytes = std::size_t{1} << 20U;
  try {
    Machine machine = read_json(text, ExitCode::kProfile, kMostBytes).at("machine").get<Machine>();
    check(machine, text);
    return machine;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::kProfile, fmt::format("no machine: {}", error.what()), text,
                "xdit-gen doctor --json");
  }
}

std::optional<Rates> rates_of(const Machine& machine) {
  const KnownGpu* gpu = machine.gpus.empty() ? nullptr : known(machine.gpus.front().name);
  const Rates& own = machine.measured;
  if (gpu == nullptr && (own.product <= 0 || own.memory <= 0)) return std::nullopt;
  const Rates& like = kKnown.front().rates;  // whose proportions a GPU has that only a product was timed on
  const auto proportion = [&](double Rates::*rate) {
    return own.*rate > 0 ? own.*rate : like.*rate * own.product / like.product;
  };
  Rates rates = gpu != nullptr ? gpu->rates : own;
  rates.read = gpu != nullptr ? gpu->rates.read : like.read;
  if (own.read > 0) rates.read = std::min(rates.read, own.read);  // files do not come faster from a disk
  if (gpu == nullptr) {
    for (double Rates::*rate : {&Rates::attention, &Rates::convolution, &Rates::float32, &Rates::peer})
      rates.*rate = proportion(rate);
    rates.host = own.host > 0 ? own.host : like.host;
    return rates;
  }
  // Sustained rates are the table's: what a GPU does in a second of doctor is done before its power limit
  // acts.
  for (double Rates::*rate : {&Rates::peer, &Rates::host})
    if (own.*rate > 0) rates.*rate = own.*rate;
  return rates;
}

std::vector<std::int64_t> by_topology(const Machine& machine) {
  std::vector<std::int64_t> all(machine.gpus.size());
  std::iota(all.begin(), all.end(), 0);
  if (machine.links.empty()) return all;
  std::vector<std::int64_t> ordered;
  for (const auto& socket : islands(machine, all, Link::kNear))
    for (const auto& island : islands(machine, socket, Link::kNvlink))
      ordered.insert(ordered.end(), island.begin(), island.end());
  return ordered;
}

}  // namespace xdit::parallel
