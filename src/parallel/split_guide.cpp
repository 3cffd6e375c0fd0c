#include "parallel/split_guide.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "parallel/device_stream.h"

namespace xdit::parallel {

at::Tensor SplitGuide::predict(models::Denoiser& denoiser, const Guidance& guidance,
                               const at::Tensor& latents, std::int64_t step) {
  const models::Branch* mine = group_.rank() == 0 ? guidance.positive : guidance.negative;
  const at::Tensor output = denoiser.predict(*mine, latents, step).contiguous();
  const auto bytes = static_cast<std::int64_t>(output.nbytes());
  if (!outputs_) outputs_ = group_.allocate(2 * bytes);
  const std::array<comm::Range, 2> parts{comm::Range{0, bytes}, comm::Range{bytes, bytes}};
  group_.all_gather_v(output.const_data_ptr(), parts, *outputs_, current_stream(output.device()));
  const at::Tensor both =
      at::from_blob(outputs_->data(), {2, output.size(0), output.size(1)}, output.options());
  return guided(both[0], both[1], guidance.scale);
}

at::Tensor TokenGather::operator()(const at::Tensor& rows) {
  const at::Tensor mine = rows.contiguous();
  const auto row_bytes = mine.size(1) * static_cast<std::int64_t>(mine.element_size());
  std::vector<comm::Range> parts;
  for (const comm::Range& range : ranges_)
    parts.push_back({range.first * row_bytes, range.count * row_bytes});
  const std::int64_t tokens = ranges_.back().end();
  if (!all_) all_ = group_.allocate(tokens * row_bytes);
  group_.all_gather_v(mine.const_data_ptr(), parts, *all_, current_stream(mine.device()));
  return at::from_blob(all_->data(), {tokens, mine.size(1)}, mine.options()).clone();
}

}  // namespace xdit::parallel
