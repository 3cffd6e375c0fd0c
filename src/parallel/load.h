#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/registry.h"
#include "parallel/plan_parameters.h"

namespace xdit::parallel {

using Tensors = std::map<std::string, at::Tensor>;

/// Where a network's memory lies on this rank: ranges of its elements (plan_parameters.h), ascending. What
/// no tensor covers is not here.
class WeightMemory {
 public:
  /// `tensor` is contiguous and holds the elements from `first` on.
  void add(std::int64_t first, const at::Tensor& tensor) { tensors_[first] = tensor.view({-1}); }
  /// The parts of `range` that are here, each with its first element.
  [[nodiscard]] std::vector<std::pair<std::int64_t, at::Tensor>> parts(Range range) const;
  [[nodiscard]] std::vector<Range> ranges() const;

 private:
  std::map<std::int64_t, at::Tensor> tensors_;
};

/// Of floating point.
[[nodiscard]] at::ScalarType torch_type(DType dtype);

/// The dtype of a network's weights in a run of that dtype.
[[nodiscard]] at::ScalarType held_dtype(const models::Network& network, at::ScalarType run);

/// What a network's parameters are read from, and to.
struct Loading {
  const models::Model& model;
  const models::Network& network;
  const std::vector<HeldParameter>& held;
  at::ScalarType dtype;
  at::Device device;
  std::int64_t threads = 1;
};

/// Fills `ranges` of the network's memory from its files, cast to `dtype`. Bytes whose dtype is already
/// `dtype` go to their place at once; others through buffers of at most 1 GiB on the device. Error(kModel)
/// for a file that is shorter than it was. `bytes_read` counts up.
void read(const Loading& loading, const std::vector<Range>& ranges, const WeightMemory& memory,
          std::uint64_t& bytes_read);

/// Fills all of `memory` with random parameters, the same for one shape and name in every run on one kind of
/// device whatever is held of them: matrices keep activations near unit variance, norm scales are near one,
/// so that pictures are neither constant nor NaN.
void draw(const Loading& loading, const WeightMemory& memory);

/// A tensor for each held parameter, or without those that are shared out where weights are `sharded`, added
/// to `memory`.
[[nodiscard]] Tensors allocate(const Loading& loading, bool sharded, WeightMemory& memory);

/// All parameters of a network on this rank alone.
[[nodiscard]] Tensors load_whole(const models::Model& model, const models::Network& network,
                                 at::ScalarType dtype, at::Device device, std::int64_t threads,
                                 std::uint64_t& bytes_read);

}  // namespace xdit::parallel
