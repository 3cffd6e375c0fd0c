#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "parallel/plan.h"

/// How long a plan takes: operations over rates, bytes over bandwidths.
namespace xdit::parallel {

/// Seconds from Enter to the last picture, of the slowest rank.
struct Prediction {
  double start_s = 0;  ///< processes and libraries
  double load_s = 0;   ///< of files in the page cache, or on a disk that was measured; drawn weights as well
  double encode_s = 0;
  double warm_up_s = 0;  ///< of kernels, what of it outlasts the reading
  double denoise_s = 0;  ///< of all the rank's pictures, preparations included
  double decode_s = 0;
  double write_s = 0;
  double finish_s = 0;                   ///< until the processes are gone
  double step_s = 0;                     ///< of one picture
  std::vector<std::uint64_t> exchanged;  ///< bytes that a rank gets from others in a step, by rank
  [[nodiscard]] double total_s() const {
    return start_s + load_s + encode_s + warm_up_s + denoise_s + decode_s + write_s + finish_s;
  }
};

/// Nothing for CPU ranks and for a machine without rates. `refiner`: what finishes the pictures, or null;
/// then step_s is that of the mean step, and exchanged what is most.
[[nodiscard]] std::optional<Prediction> predict(const Plan& plan, const models::Model& model,
                                                const Machine& machine, const config::RunSpec& spec,
                                                const models::Model* refiner = nullptr);

/// The plan of a model whose pictures another one finishes and decodes.
[[nodiscard]] Plan without_decoding(Plan plan, const models::Model& model);

/// `spec` that asks for each degree of `mesh`.
[[nodiscard]] config::RunSpec with_degrees(config::RunSpec spec, const Mesh& mesh);

/// The mesh of `ranks` that is predicted to be over first, among those that the asked degrees and
/// `parallel.allow` take; choose_mesh's where another is no faster. Nothing where no degree is left to
/// choose, no prediction can be made or no mesh fits.
[[nodiscard]] std::optional<Mesh> fastest_mesh(const config::RunSpec& spec, const models::Model& model,
                                               const Machine& machine, std::int64_t ranks);

/// A grid that a run could have.
struct Grid {
  Mesh mesh;
  std::int64_t shard = 1;
  config::Allow grade = config::Allow::kExact;
  std::uint64_t peak_memory = 0;  ///< of the rank that needs most, for the larger model; 0: it does not fit
  std::optional<Prediction> prediction;
  std::string why_not;  ///< why it was not chosen; "" for the plan's own
};
/// The plan's own, then the others of as many ranks that the asked degrees allow: exact ones, fastest first,
/// others, and those that cannot be.
[[nodiscard]] std::vector<Grid> grids(const Plan& chosen, const models::Model& model, const Machine& machine,
                                      const config::RunSpec& spec, const models::Model* refiner = nullptr);
/// "ulysses 2 x tensor 4, sharded over 2"; "one rank".
[[nodiscard]] std::string name_of(const Grid& grid);

}  // namespace xdit::parallel
