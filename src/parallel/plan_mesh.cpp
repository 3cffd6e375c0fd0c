#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "parallel/plan.h"

namespace xdit::parallel {
namespace {

constexpr const char* kWhere = "parallel";

// The largest divisor of `ranks` that `fits`.
template <class F>
std::int64_t largest_divisor(std::int64_t ranks, F&& fits) {
  for (std::int64_t d = ranks; d > 1; --d)
    if (ranks % d == 0 && fits(d)) return d;
  return 1;
}

// Gives `degree`, unless it was asked for, the largest part of the ranks that are left for which it fits.
template <class F>
void choose(const std::optional<std::int64_t>& asked, std::int64_t& degree, std::int64_t& left, F&& fits) {
  if (asked) return;
  degree = largest_divisor(left, fits);
  left /= degree;
}

void refuse_unsupported(const Mesh& mesh) {
  for (const auto& [name, degree] :
       {std::pair{"pipefusion", mesh.pipefusion}, {"ring", mesh.ring}, {"tensor", mesh.tensor}})
    if (degree > 1)
      throw Error(ExitCode::kUsage,
                  fmt::format("{} {}: this version has data, cfg, gather and ulysses", name, degree), kWhere,
                  fmt::format("--{} 1", name));
}

void refuse_heads(const Mesh& mesh, std::int64_t heads) {
  if (heads % mesh.ulysses == 0) return;
  std::vector<std::int64_t> fitting;
  for (std::int64_t d = 1; d <= heads; ++d)
    if (heads % d == 0) fitting.push_back(d);
  throw Error(ExitCode::kUsage,
              fmt::format("ulysses {} does not divide the model's {} heads; {} do", mesh.ulysses, heads,
                          fmt::join(fitting, ", ")),
              "--ulysses", "--gather, which takes any degree");
}

}  // namespace

comm::Mesh Mesh::ranks() const {
  const auto narrow = [](std::int64_t degree) { return static_cast<int>(degree); };
  return comm::Mesh({narrow(data), narrow(cfg), narrow(pipefusion), narrow(ring * gather), narrow(ulysses),
                     narrow(tensor)});
}

Mesh choose_mesh(const config::RunSpec& spec, std::int64_t heads, std::int64_t ranks) {
  const config::RunSpec::Parallel& asked = spec.parallel;
  const auto degree = [](const std::optional<std::int64_t>& value) { return value.value_or(1); };
  Mesh mesh{.data = degree(asked.data),
            .cfg = degree(asked.cfg),
            .pipefusion = degree(asked.pipefusion),
            .ring = degree(asked.ring),
            .gather = degree(asked.gather),
            .ulysses = degree(asked.ulysses),
            .tensor = degree(asked.tensor)};
  refuse_unsupported(mesh);
  const bool guided = spec.sampling.cfg_scale > 1;
  if (mesh.cfg > 2 || (mesh.cfg == 2 && !guided))
    throw Error(ExitCode::kUsage,
                fmt::format("cfg {}: there are {} prompt branches", mesh.cfg, guided ? 2 : 1),
                "--cfg-parallel", guided ? "--cfg-parallel 2" : "--cfg-parallel 1, or --cfg-scale above 1");

  // Whole pictures cost no exchange, branches one a step, heads two a layer; a gather takes any number.
  if (ranks % mesh.size() == 0) {
    std::int64_t left = ranks / mesh.size();
    const auto pictures = static_cast<std::int64_t>(config::pictures(spec).size());
    const bool exchanges =
        spec.runtime.device == config::Device::kCpu;  // GPUs do not yet: idle ones are said to be
    choose(asked.data, mesh.data, left, [&](std::int64_t d) { return d <= pictures || !exchanges; });
    choose(asked.cfg, mesh.cfg, left, [&](std::int64_t d) { return d <= 2 && guided; });
    choose(asked.ulysses, mesh.ulysses, left, [&](std::int64_t d) { return heads % d == 0; });
    choose(asked.gather, mesh.gather, left, [](std::int64_t) { return true; });
  }
  if (mesh.size() != ranks)
    throw Error(ExitCode::kUsage,
                fmt::format("the degrees multiply to {}, but --gpus gives {} rank{}", mesh.size(), ranks,
                            ranks == 1 ? "" : "s"),
                kWhere, fmt::format("--gpus {}, or degrees of 1", mesh.size()));
  refuse_heads(mesh, heads);
  return mesh;
}

}  // namespace xdit::parallel
