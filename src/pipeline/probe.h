#pragma once
#include <cstdint>
#include <string>
#include <vector>

/// What GPUs do when they are tried. Across the boundary of the rank library, as rank.h.
namespace xdit::pipeline {

struct Probe {
  std::int64_t cuda = 0;                   ///< runtime of the library: 13000; 0: it has none
  std::int64_t nccl = 0;                   ///< 22809, or 0
  double product = 0;                      ///< operations a second of a bf16 product on the first GPU
  double memory = 0;                       ///< bytes a second that its memory reads and writes
  std::vector<double> host;                ///< bytes a second from pinned memory to each GPU
  std::vector<std::vector<double>> pairs;  ///< bytes a second from a GPU to another; 0: to itself
  std::vector<std::string> faults;         ///< by GPU: why it cannot be used, or ""
};
/// Tries the first `gpus` that CUDA shows, a second or two each.
using TryGpus = void(Probe& probe, std::int64_t gpus);
inline constexpr const char* kTryGpusSymbol = "xdit_try_gpus";

}  // namespace xdit::pipeline
