#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace xdit::nn {

/// The tensors of one network on this rank's device, in the run's dtype. Where they are held (here, spread
/// over ranks, in host memory) is the implementation's business.
class Weights {
 public:
  Weights() = default;
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;
  virtual ~Weights() = default;
  /// By the name of its Parameter. Valid while its block is entered; one outside the blocks always is.
  [[nodiscard]] virtual at::Tensor get(const std::string& name) const = 0;
  /// Whether it is here for good, not while a block is entered only.
  [[nodiscard]] virtual bool stays(const std::string& /*name*/) const { return true; }
  /// Rows [first, first + count) of a matrix outside the blocks that is used in pieces, one of which they are
  /// (Parameter::piece_rows). Valid until the next piece is asked for or a block is entered.
  [[nodiscard]] virtual at::Tensor rows(const std::string& name, std::int64_t first, std::int64_t count) {
    return get(name).narrow(0, first, count);
  }
  virtual void enter(std::int64_t block) = 0;  ///< the block's tensors are here now
  virtual void leave(std::int64_t block) = 0;  ///< and may go
  /// The network needs this tensor no more (what was computed from it is kept).
  virtual void release(const std::string& name) = 0;
};

/// All tensors stay on the device.
class ResidentWeights final : public Weights {
 public:
  explicit ResidentWeights(std::map<std::string, at::Tensor> tensors) : tensors_(std::move(tensors)) {}
  [[nodiscard]] at::Tensor get(const std::string& name) const override;
  void enter(std::int64_t /*block*/) override {}
  void leave(std::int64_t /*block*/) override {}
  void release(const std::string& name) override { tensors_.erase(name); }

 private:
  std::map<std::string, at::Tensor> tensors_;
};

}  // namespace xdit::nn
