#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "comm/mesh.h"
#include "config/run_spec.h"
#include "models/registry.h"

namespace xdit::parallel {

/// Degrees of parallelism; the last varies fastest over ranks. ring and gather exclude each other.
struct Mesh {
  std::int64_t data = 1;
  std::int64_t cfg = 1;
  std::int64_t pipefusion = 1;
  std::int64_t ring = 1;
  std::int64_t gather = 1;
  std::int64_t ulysses = 1;
  std::int64_t tensor = 1;
  [[nodiscard]] std::int64_t size() const {
    return data * cfg * pipefusion * ring * gather * ulysses * tensor;
  }
  [[nodiscard]] comm::Mesh ranks() const;  ///< who stands where
  [[nodiscard]] std::int64_t token_ranks() const { return ring * gather * ulysses; }
  /// By name: "ulysses" -> 2.
  [[nodiscard]] std::vector<std::pair<std::string, std::int64_t>> degrees() const {
    return {{"data", data},     {"cfg", cfg},         {"pipefusion", pipefusion}, {"ring", ring},
            {"gather", gather}, {"ulysses", ulysses}, {"tensor", tensor}};
  }
  friend bool operator==(const Mesh&, const Mesh&) = default;
};

/// The mesh of `ranks`: the degrees that were asked for, the others chosen among exact modes by a rule:
/// pictures, branches, heads, rows. Error(kUsage) for degrees that fit neither each other nor the model.
[[nodiscard]] Mesh choose_mesh(const config::RunSpec& spec, const models::Shape& shape, std::int64_t ranks);

/// What the degrees do to the picture, and displaced rows after `warmup` of `steps` steps.
[[nodiscard]] config::Allow grade_of(const Mesh& mesh, bool displaced, std::int64_t warmup,
                                     std::int64_t steps);

}  // namespace xdit::parallel
