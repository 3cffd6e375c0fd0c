#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/stop.h"
#include "launch/nvml.h"
#include "parallel/plan_machine.h"
#include "pipeline/probe.h"

/// What a machine has and does, what is wrong with it, and how that is mended.
namespace xdit::launch {

struct Health {
  parallel::Machine machine;     ///< with the rates that were measured
  std::string driver;            ///< "580.65", or "": there is none
  std::string driver_fault{};    ///< why it does not answer, or ""
  std::int64_t cuda = 0;         ///< that the driver serves: 13000
  std::size_t hidden = 0;        ///< GPUs that CUDA_VISIBLE_DEVICES hides
  std::vector<GpuState> gpus;    ///< by GPU of the machine, before they were tried
  std::vector<GpuSample> tried;  ///< while they were: the hottest, and every reason to throttle
  pipeline::Probe probe;
  std::string probe_fault, probe_fix;  ///< why nothing could be tried
  double disk = 0;                     ///< bytes a second that it reads; 0: not known
  std::string disk_path;
  std::uint64_t shm = 0;         ///< bytes of /dev/shm
  std::uint64_t open_files = 0;  ///< limit
  std::uint64_t locked = 0;      ///< limit of locked memory in bytes; all ones: none
};

struct Problem {
  std::string what, mend;  ///< a line each
  bool fatal = false;      ///< no picture on GPUs before it is mended
};
/// On a machine whose GPUs are wanted, or of which nobody wants any.
[[nodiscard]] std::vector<Problem> problems_of(const Health& health, bool wants_gpus);

/// Looks and tries; `disk`: a file that is read, or a folder for a file that is gone afterwards. Throws what
/// `stop` asks for.
[[nodiscard]] Health examine(const std::filesystem::path& disk, bool wants_gpus, const StopToken& stop);

/// Bytes a second of reading past the page cache; 0 where that cannot be.
[[nodiscard]] double disk_rate(const std::filesystem::path& file_or_folder);

/// For programs; its "machine" is what plan --machine reads.
[[nodiscard]] nlohmann::ordered_json to_json(const Health& health, const std::vector<Problem>& problems);
[[nodiscard]] std::string to_text(const Health& health, const std::vector<Problem>& problems);

}  // namespace xdit::launch
