#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "comm/rows.h"
#include "config/run_spec.h"
#include "models/registry.h"
#include "parallel/plan_machine.h"
#include "parallel/plan_mesh.h"

/// Who holds and does what: computed from the run, the model's tables and the machine before any GPU or
/// weight is touched. Plain data.
namespace xdit::parallel {

using comm::Range;

/// What one network costs a rank.
struct NetworkBytes {
  std::uint64_t file = 0;         ///< bytes to read from files
  std::uint64_t memory = 0;       ///< bytes of its weights in the run's dtype, or quantised
  std::uint64_t unquantised = 0;  ///< bytes more until they are quantised
};

/// Ranks that hold the same bytes of a network's weights: each reads its share of them and gets the others'.
struct Readers {
  std::vector<int> ranks;            ///< ascending
  std::vector<std::int64_t> shares;  ///< by rank, in proportion
  friend bool operator==(const Readers&, const Readers&) = default;
};

struct RankPlan {
  std::int64_t rank = 0;
  std::int64_t device = 0;  ///< index among the machine's GPUs; 0 on the CPU
  Range pictures;           ///< of the run; none: the rank is idle
  bool decodes = true;      ///< and writes; the others that make its pictures hand it their rows
  bool encodes = false;     ///< prompts, for all
  Range text_tokens;
  std::vector<Range> image_tokens;  ///< by band; one but with pipefusion
  Range blocks;                     ///< of the denoiser
  std::vector<int> sharding;        ///< ranks that store a share of each block; this one alone: all of it
  Readers block_readers;            ///< of its part of them; nobody where it holds none
  std::map<std::string, Readers> readers;  ///< of what belongs to no block, for each network that it holds
  Range latent_rows;                       ///< its slab of the VAE's input
  std::map<std::string, NetworkBytes> networks;  ///< by component
  std::uint64_t peak_memory = 0;                 ///< predicted bytes on the device
  bool overlap_loading = true;                   ///< text encoders and denoiser are held at once
};

struct Plan {
  Mesh mesh;
  std::int64_t text_tokens = 0;
  std::int64_t image_tokens = 0;
  std::int64_t image_columns = 0;  ///< tokens of a row of the picture
  bool quantised = false;          ///< the matrices of its blocks are in e4m3
  bool displaced = false;          ///< a UNet's rows reach other ranks one step late
  std::int64_t warmup = 0;         ///< exact steps that pipefusion and displaced rows begin with
  std::int64_t shard = 1;          ///< ranks over which every block's weights, and pieces, are spread
  std::vector<RankPlan> ranks;
  config::Transport transport = config::Transport::kPeer;  ///< of all ranks
  bool replays = false;                                    ///< forwards as CUDA graphs
  bool joins_branches = false;                             ///< of a guided step, which one rank computes
  bool warms_up = false;  ///< a forward runs on weights that are still being read
  [[nodiscard]] bool exchanges() const { return ranks.size() > 1; }
  [[nodiscard]] bool keeps_weights() const;  ///< on devices, from one run to the next of the same blocks
  config::Allow grade = config::Allow::kExact;
  std::vector<std::string> notes;  ///< what the user should know of it, a line each
};

/// Error(kUsage) for degrees that do not fit each other or the model, Error(kDevice) for GPUs that are not
/// there, Error(kMemory) when the weights alone cannot fit; each names what would.
[[nodiscard]] Plan make_plan(const config::RunSpec& spec, const models::Model& model, const Machine& machine);

/// Device numbers of "all" or a count, neighbours first, or of a list as it stands: those of a count need not
/// be there. Error(kDevice) for a UUID that is not.
[[nodiscard]] std::vector<std::int64_t> devices_of(const std::string& gpus, const Machine& machine,
                                                   bool on_cpu);

/// Which of the run's pictures each place of the ranks' shares gets, so that they are finished in about the
/// run's order.
[[nodiscard]] std::vector<std::size_t> dealt_out(const Plan& plan);

/// For people (`--dry-run`).
[[nodiscard]] std::string to_text(const Plan& plan, const models::Model& model, const Machine& machine,
                                  const config::RunSpec& spec);

}  // namespace xdit::parallel
