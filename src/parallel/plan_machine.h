#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

/// A machine as a value: what a plan is made for.
namespace xdit::parallel {

struct Gpu {
  std::string name;             ///< "NVIDIA H100 80GB HBM3"
  std::string uuid;             ///< "GPU-..."
  std::uint64_t memory = 0;     ///< bytes
  std::int64_t capability = 0;  ///< CUDA's, ten times the major number: 90 of an H100; 0: not known
};

/// How two GPUs reach each other, farthest first.
enum class Link : std::uint8_t { kNone, kFar, kNear, kNvlink };  ///< not; over sockets; below one; NVLink

/// What a GPU does in a second; 0: not known.
struct Rates {
  double product = 0;      ///< operations of bf16 linears, sustained
  double attention = 0;    ///< of bf16 attention with heads of 128 channels
  double convolution = 0;  ///< of bf16 3x3 convolutions
  double float32 = 0;      ///< operations in float32
  double memory = 0;       ///< bytes of its memory
  double peer = 0;         ///< bytes that it writes to another GPU's memory
  double host = 0;         ///< bytes from pinned memory of the host
  double read = 0;         ///< bytes from files to the device: in the page cache; measured: on the disk
};

struct Machine {
  std::vector<Gpu> gpus;          ///< those that CUDA would show, in its order
  bool peer_access = true;        ///< GPUs reach each other's memory
  std::uint64_t host_memory = 0;  ///< bytes
  std::int64_t cores = 1;
  std::vector<std::vector<Link>> links{};  ///< by GPU and GPU; empty: all alike
  Rates measured{};                        ///< on this machine
};

void to_json(nlohmann::json& json, const Gpu& gpu);
void from_json(const nlohmann::json& json, Gpu& gpu);
void to_json(nlohmann::json& json, const Machine& machine);
void from_json(const nlohmann::json& json, Machine& machine);

/// Names of the GPUs whose rates are known: "h100".
[[nodiscard]] std::vector<std::string> known_gpus();
/// "h100x8", or a JSON file that doctor wrote. Error(kUsage) for another text, Error(kProfile) for another
/// file.
[[nodiscard]] Machine read_machine(const std::string& text);

/// The published or measured rates of the machine's first GPU; nothing for a GPU that is neither.
[[nodiscard]] std::optional<Rates> rates_of(const Machine& machine);

/// The GPUs of a machine so that neighbours share the fastest link: islands of NVLink one after the other,
/// within those of a socket, the largest first.
[[nodiscard]] std::vector<std::int64_t> by_topology(const Machine& machine);

}  // namespace xdit::parallel
