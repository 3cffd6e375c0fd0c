#include "parallel/plan_mesh.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"

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

[[noreturn]] void refuse(const std::string& what, const std::string& where, const std::string& fix) {
  throw Error(ExitCode::kUsage, what, where, fix);
}

// A network of convolutions has neither heads of one layer to divide everywhere nor blocks that pass tokens
// on.
void refuse_modes_of_tokens(const Mesh& mesh) {
  for (const auto& [name, degree] : {std::pair{"ulysses", mesh.ulysses},
                                     {"ring", mesh.ring},
                                     {"tensor", mesh.tensor},
                                     {"pipefusion", mesh.pipefusion}})
    if (degree > 1)
      refuse(fmt::format("{} {}: a UNet is spread over ranks by data, cfg, gather (rows of the picture), vae "
                         "and shard-weights only",
                         name, degree),
             fmt::format("--{}", name), fmt::format("--gather {}", degree));
}

void refuse_displaced(const Mesh& mesh, const models::Shape& shape) {
  if (!shape.by_rows)
    refuse("patch displaced: only a UNet is spread by rows", "--patch",
           "--pipefusion, which approximates this model");
  if (mesh.gather == 1)
    refuse("patch displaced: every rank holds whole pictures", "--patch", "--gather 2, or --patch exact");
}

void refuse_misfits(const Mesh& mesh, const models::Shape& shape, bool guided) {
  if (mesh.cfg > 2 || (mesh.cfg == 2 && !guided))
    refuse(fmt::format("cfg {}: there are {} prompt branches", mesh.cfg, guided ? 2 : 1), "--cfg-parallel",
           guided ? "--cfg-parallel 2" : "--cfg-parallel 1, or --cfg-scale above 1");
  if (mesh.ring > 1 && mesh.gather > 1)
    refuse(fmt::format("ring {} and gather {} are two ways to do one thing", mesh.ring, mesh.gather), kWhere,
           fmt::format("--gather {}, which is exact", mesh.ring * mesh.gather));
  if (mesh.ring > 1 && mesh.pipefusion > 1)
    refuse("pipefusion keeps all keys on every rank, and a ring does not", "--ring",
           fmt::format("--gather {}", mesh.ring));
  if (mesh.pipefusion > shape.blocks)
    refuse(fmt::format("pipefusion {}: the model has {} blocks", mesh.pipefusion, shape.blocks),
           "--pipefusion", fmt::format("--pipefusion {}", shape.blocks));
  const std::int64_t parts = mesh.ulysses * mesh.tensor;
  if (shape.heads % parts == 0) return;
  std::vector<std::int64_t> fitting;
  for (std::int64_t d = 1; d <= shape.heads; ++d)
    if (shape.heads % d == 0) fitting.push_back(d);
  refuse(fmt::format("ulysses {} x tensor {} does not divide the model's {} heads; {} do", mesh.ulysses,
                     mesh.tensor, shape.heads, fmt::join(fitting, ", ")),
         mesh.tensor > 1 ? "--tensor" : "--ulysses", "--gather, which takes any degree");
}

}  // namespace

comm::Mesh Mesh::ranks() const {
  const auto narrow = [](std::int64_t degree) { return static_cast<int>(degree); };
  return comm::Mesh({narrow(data), narrow(cfg), narrow(pipefusion), narrow(ring * gather), narrow(ulysses),
                     narrow(tensor)});
}

Mesh choose_mesh(const config::RunSpec& spec, const models::Shape& shape, std::int64_t ranks) {
  const config::RunSpec::Parallel& asked = spec.parallel;
  const auto degree = [](const std::optional<std::int64_t>& value) { return value.value_or(1); };
  Mesh mesh{.data = degree(asked.data),
            .cfg = degree(asked.cfg),
            .pipefusion = degree(asked.pipefusion),
            .ring = degree(asked.ring),
            .gather = degree(asked.gather),
            .ulysses = degree(asked.ulysses),
            .tensor = degree(asked.tensor)};
  const bool guided = spec.sampling.cfg_scale > 1;

  // Whole pictures cost no exchange, branches one a step, heads two a layer; a gather takes any number.
  if (ranks % mesh.size() == 0) {
    std::int64_t left = ranks / mesh.size();
    const auto pictures = static_cast<std::int64_t>(config::pictures(spec).size());
    choose(asked.data, mesh.data, left, [&](std::int64_t d) { return d <= pictures; });
    choose(asked.cfg, mesh.cfg, left, [&](std::int64_t d) { return d <= 2 && guided; });
    choose(asked.ulysses, mesh.ulysses, left,
           [&](std::int64_t d) { return !shape.by_rows && shape.heads % (d * mesh.tensor) == 0; });
    choose(asked.gather, mesh.gather, left, [&](std::int64_t) { return mesh.ring == 1; });
  }
  if (mesh.size() != ranks)
    throw Error(ExitCode::kUsage,
                fmt::format("the degrees multiply to {}, but --gpus gives {} rank{}", mesh.size(), ranks,
                            ranks == 1 ? "" : "s"),
                kWhere, fmt::format("--gpus {}, or degrees of 1", mesh.size()));
  if (shape.by_rows) refuse_modes_of_tokens(mesh);
  refuse_misfits(mesh, shape, guided);
  if (asked.patch == config::Patch::kDisplaced) refuse_displaced(mesh, shape);
  return mesh;
}

config::Allow grade_of(const Mesh& mesh, bool displaced, std::int64_t warmup, std::int64_t steps) {
  if ((mesh.pipefusion > 1 || displaced) && warmup < steps) return config::Allow::kApproximate;
  return mesh.ring > 1 || mesh.tensor > 1 ? config::Allow::kRounding : config::Allow::kExact;
}

}  // namespace xdit::parallel
