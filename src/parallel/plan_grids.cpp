#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>
#include <tuple>

#include "core/error.h"
#include "parallel/plan_predict.h"

namespace xdit::parallel {
namespace {

constexpr double kNoDifference = 0.03;  // of predictions

struct Axis {
  const char* name;
  std::int64_t Mesh::*degree;
  config::RunSpec::Parallel::Degree config::RunSpec::Parallel::*asked;
  config::Allow grade = config::Allow::kExact;
};
using P = config::RunSpec::Parallel;
constexpr std::array<Axis, 7> kAxes{
    {{"data", &Mesh::data, &P::data},
     {"cfg", &Mesh::cfg, &P::cfg},
     {"pipefusion", &Mesh::pipefusion, &P::pipefusion, config::Allow::kApproximate},
     {"ring", &Mesh::ring, &P::ring, config::Allow::kRounding},
     {"gather", &Mesh::gather, &P::gather},
     {"ulysses", &Mesh::ulysses, &P::ulysses},
     {"tensor", &Mesh::tensor, &P::tensor, config::Allow::kRounding}}};

// All meshes of `ranks` that the asked degrees allow.
void each_mesh(const config::RunSpec& spec, std::int64_t ranks, Mesh mesh, std::size_t axis,
               const std::function<void(const Mesh&)>& visit) {
  if (axis == kAxes.size()) {
    if (ranks == 1) visit(mesh);
    return;
  }
  const auto& asked = spec.parallel.*kAxes.at(axis).asked;
  for (std::int64_t degree = 1; degree <= ranks; ++degree) {
    if (ranks % degree != 0 || (asked && *asked != degree)) continue;
    mesh.*kAxes.at(axis).degree = degree;
    each_mesh(spec, ranks / degree, mesh, axis + 1, visit);
  }
}

// One way alone to spread the work.
bool is_pure(const Mesh& mesh) {
  return std::count_if(kAxes.begin(), kAxes.end(), [&](const Axis& axis) { return mesh.*axis.degree > 1; }) ==
         1;
}

std::uint64_t most_memory(const Plan& plan) {
  std::uint64_t most = 0;
  for (const RankPlan& rank : plan.ranks) most = std::max(most, rank.peak_memory);
  return most;
}

double most_gigabytes(const Prediction& prediction) {
  return static_cast<double>(*std::max_element(prediction.exchanged.begin(), prediction.exchanged.end())) /
         1e9;
}

std::string loss(const Grid& grid, const Grid& chosen, config::Allow allowed) {
  if (grid.grade > allowed)
    return grid.grade == config::Allow::kApproximate ? "another picture: --allow approximate"
                                                     : "rounds differently: --allow rounding";
  if (!grid.prediction || !chosen.prediction) return "the rule: pictures, branches, heads, then rows";
  const double more = grid.prediction->total_s() / chosen.prediction->total_s() - 1;
  if (more > kNoDifference)
    return fmt::format("{:.0f} % slower, gets {:.2f} GB a step instead of {:.2f}", 100 * more,
                       most_gigabytes(*grid.prediction), most_gigabytes(*chosen.prediction));
  return more < -kNoDifference ? fmt::format("predicted {:.0f} % faster: worth a try", -100 * more)
                               : "about as fast";
}

Grid grid_of(const Plan& plan, const models::Model& model, const Machine& machine,
             const config::RunSpec& spec, const models::Model* refiner) {
  Grid grid{.mesh = plan.mesh,
            .shard = plan.shard,
            .grade = plan.grade,
            .peak_memory = most_memory(plan),
            .prediction = predict(plan, model, machine, spec, refiner),
            .why_not = {}};
  if (refiner != nullptr)  // one goes before the other comes
    grid.peak_memory =
        std::max(grid.peak_memory, most_memory(make_plan(with_degrees(spec, plan.mesh), *refiner, machine)));
  return grid;
}

}  // namespace

config::RunSpec with_degrees(config::RunSpec spec, const Mesh& mesh) {
  for (const Axis& axis : kAxes) spec.parallel.*axis.asked = mesh.*axis.degree;
  return spec;
}

std::optional<Mesh> fastest_mesh(const config::RunSpec& spec, const models::Model& model,
                                 const Machine& machine, std::int64_t ranks) {
  const auto open = [&](const Axis& axis) { return !(spec.parallel.*axis.asked); };
  if (ranks == 1 || std::none_of(kAxes.begin(), kAxes.end(), open)) return std::nullopt;
  if (spec.runtime.device == config::Device::kCpu || !rates_of(machine)) return std::nullopt;
  std::optional<Mesh> best;
  double least_s = 0;
  const auto weigh = [&](const Mesh& mesh) {
    try {
      const config::RunSpec asked = with_degrees(spec, mesh);
      const double seconds = predict(make_plan(asked, model, machine), model, machine, asked)->total_s();
      if (best && seconds >= least_s) return;
      best = mesh;
      least_s = seconds;
    } catch (const Error&) {  // of no use
    }
  };
  weigh(choose_mesh(spec, model.shape, ranks));
  const auto pictures = static_cast<std::int64_t>(config::pictures(spec).size());
  each_mesh(spec, ranks, {}, 0, [&](const Mesh& mesh) {
    const bool allowed = std::none_of(kAxes.begin(), kAxes.end(), [&](const Axis& axis) {
      return open(axis) && mesh.*axis.degree > 1 && axis.grade > spec.parallel.allow;
    });
    if (allowed && (mesh.data <= pictures || spec.parallel.data)) weigh(mesh);
  });
  return best;
}

std::vector<Grid> grids(const Plan& chosen, const models::Model& model, const Machine& machine,
                        const config::RunSpec& spec, const models::Model* refiner) {
  std::vector<Grid> all{grid_of(chosen, model, machine, spec, refiner)};
  const auto pictures = static_cast<std::int64_t>(config::pictures(spec).size());
  each_mesh(spec, chosen.mesh.size(), {}, 0, [&](const Mesh& mesh) {
    if (mesh == chosen.mesh || (mesh.data > pictures && !spec.parallel.data)) return;
    const config::RunSpec asked = with_degrees(spec, mesh);
    try {
      const Plan plan = make_plan(asked, model, machine);
      Grid grid = grid_of(plan, model, machine, asked, refiner);
      grid.why_not = loss(grid, all.front(), std::max(spec.parallel.allow, chosen.grade));
      all.push_back(std::move(grid));
    } catch (const Error& error) {
      if (error.code() == ExitCode::kMemory || is_pure(mesh))
        all.push_back({.mesh = mesh, .prediction = {}, .why_not = error.message()});
    }
  });
  const auto order = [](const Grid& grid) {
    return std::tuple(grid.peak_memory == 0, grid.grade, grid.prediction ? grid.prediction->total_s() : 0);
  };
  std::stable_sort(all.begin() + 1, all.end(),
                   [&](const Grid& a, const Grid& b) { return order(a) < order(b); });
  return all;
}

std::string name_of(const Grid& grid) {
  std::vector<std::string> parts;
  for (const Axis& axis : kAxes)
    if (grid.mesh.*axis.degree > 1) parts.push_back(fmt::format("{} {}", axis.name, grid.mesh.*axis.degree));
  std::string name = parts.empty() ? "one rank" : fmt::format("{}", fmt::join(parts, " x "));
  if (grid.shard > 1) name += fmt::format(", sharded over {}", grid.shard);
  return name;
}

}  // namespace xdit::parallel
