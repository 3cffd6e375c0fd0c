#pragma once
#include <cstddef>
#include <cstdint>

struct ncclWindow_vidmem;

namespace xdit::comm {

class NcclGroup;

/// Memory of one size on every rank that NCCL knows as a symmetric window, in which its collectives take
/// kernels that store at their peers. Goes when all ranks' work in it is done, before its group is closed.
class NcclWindow {
 public:
  /// Collective; `bytes` the same on all ranks. Error(kRank) or Error(kMemory).
  NcclWindow(NcclGroup& group, std::int64_t bytes);
  NcclWindow(const NcclWindow&) = delete;
  NcclWindow& operator=(const NcclWindow&) = delete;
  ~NcclWindow();
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  NcclGroup& group_;
  std::byte* data_ = nullptr;
  ncclWindow_vidmem* window_ = nullptr;
};

}  // namespace xdit::comm
