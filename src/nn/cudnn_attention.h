#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace xdit::nn::cudnn {

/// Channels of a head up to which cuDNN's kernels were seen to be exact on the current GPU.
[[nodiscard]] std::int64_t widest_head();

/// Whether rows of x [B, H, T, D] are contiguous and begin at multiples of 16 bytes, for x in 16 bits.
[[nodiscard]] bool rows_are_aligned(const at::Tensor& x);

/// cuDNN's attention on the current GPU, the kernel that LibTorch takes, into memory that the caller has.
/// Keeps what it has built. A build without CUDA has none.
class Attentions {
 public:
  Attentions();
  Attentions(const Attentions&) = delete;
  Attentions& operator=(const Attentions&) = delete;
  ~Attentions();
  /// `out` becomes softmax(q k^T scale) v, all [B, H, T, D]. False, with nothing done, where there is no
  /// kernel: it wants float16 or bfloat16, D a multiple of 8 up to widest_head() and next to each other, rows
  /// at multiples of 16 bytes.
  [[nodiscard]] bool operator()(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v, double scale);
  [[nodiscard]] std::size_t count() const { return built_.size(); }

 private:
  struct Built;
  using Key = std::vector<std::int64_t>;         ///< sizes and strides of all, dtype, scale
  std::map<Key, std::unique_ptr<Built>> built_;  ///< null: cuDNN has none
};

}  // namespace xdit::nn::cudnn
