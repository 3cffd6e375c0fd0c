#include "parallel/split_guide.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "parallel/device_stream.h"

namespace xdit::parallel {

std::vector<const models::Branch*> SplitGuide::branches(const Guidance& guidance) const {
  return {group_.rank() == 0 ? guidance.positive : guidance.negative};
}

at::Tensor SplitGuide::combine(std::span<const at::Tensor> predictions, const Guidance& guidance) {
  const at::Tensor output = predictions[0].contiguous();
  const auto bytes = static_cast<std::int64_t>(output.nbytes());
  if (!outputs_) outputs_ = group_.allocate(2 * bytes);
  const std::array<comm::Range, 2> parts{comm::Range{0, bytes}, comm::Range{bytes, bytes}};
  group_.all_gather_v(output.const_data_ptr(), parts, *outputs_, current_stream(output.device()));
  const at::Tensor both =
      at::from_blob(outputs_->data(), {2, output.size(0), output.size(1)}, output.options());
  return guided(both[0], both[1], guidance);
}

at::Tensor TokenGather::operator()(const at::Tensor& rows) {
  const at::Tensor mine = rows.contiguous();
  const auto row_bytes = mine.size(1) * static_cast<std::int64_t>(mine.element_size());
  const std::int64_t tokens = split_.all_tokens() - split_.text_tokens();
  const auto* source = static_cast<const std::byte*>(mine.const_data_ptr());
  std::vector<comm::Put> puts;
  for (const Range& range : split_.image.at(static_cast<std::size_t>(group_.rank()))) {
    for (const int peer : group_.everyone())
      puts.push_back({.peer = peer,
                      .source = source,
                      .rows = 1,
                      .row_bytes = range.count * row_bytes,
                      .source_stride = 0,
                      .offset = range.first * row_bytes});
    source += range.count * row_bytes;
  }
  if (!all_) all_ = group_.allocate(tokens * row_bytes);
  group_.all_to_all_v(puts, *all_, current_stream(mine.device()));
  return at::from_blob(all_->data(), {tokens, mine.size(1)}, mine.options()).clone();
}

}  // namespace xdit::parallel
