#include "parallel/weight_exchange.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <span>

#include "parallel/device_stream.h"

namespace xdit::parallel {
WeightExchange::WeightExchange(comm::Group& group, std::int64_t turn_bytes)
    : group_(group), turn_bytes_(turn_bytes), staging_(group.allocate(turn_bytes * group.size())) {}

void WeightExchange::exchange(const std::vector<std::vector<Range>>& shares, const WeightMemory& memory,
                              const at::TensorOptions& options) {
  const auto element = static_cast<std::int64_t>(options.dtype().itemsize());
  const std::int64_t turn = turn_bytes_ / element;
  const comm::Stream stream = current_stream(options.device());
  std::int64_t longest = 0;
  for (const std::vector<Range>& share : shares) longest = std::max(longest, elements_of(share));

  // The tensors of a rank's part of a turn, in order.
  const auto parts = [&](int rank, std::int64_t first) {
    std::vector<at::Tensor> tensors;
    for (const Range& range : section(shares.at(static_cast<std::size_t>(rank)), {first, turn}))
      for (const auto& [at, tensor] : memory.parts(range)) tensors.push_back(tensor);
    return tensors;
  };
  comm::Peers others = group_.everyone();
  std::erase(others, group_.rank());
  static_cast<void>(group_.share({}));  // a device does not wait for files
  for (std::int64_t first = 0; first < longest; first += turn) {
    std::vector<comm::Put> puts;
    std::int64_t offset = group_.rank() * turn_bytes_;
    for (const at::Tensor& tensor : parts(group_.rank(), first)) {
      const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
      for (const int peer : others)
        puts.push_back({.peer = peer,
                        .source = tensor.const_data_ptr(),
                        .rows = 1,
                        .row_bytes = bytes,
                        .source_stride = 0,
                        .offset = offset});
      offset += bytes;
    }
    staging_.post(others, stream);
    staging_.put(puts, others, stream, "weights");
    staging_.arrive(others, stream, "weights");
    for (const int peer : others) {
      offset = peer * turn_bytes_;
      for (const at::Tensor& tensor : parts(peer, first)) {
        tensor.copy_(at::from_blob(staging_.data() + offset, {tensor.numel()}, options));
        offset += static_cast<std::int64_t>(tensor.nbytes());
      }
    }
  }
}

}  // namespace xdit::parallel
