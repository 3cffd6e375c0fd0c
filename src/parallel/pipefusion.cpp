#include "parallel/pipefusion.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "parallel/device_stream.h"

namespace xdit::parallel {

struct PipefusionLoop::Picture {
  models::Denoiser& denoiser;
  const schedulers::Sampler& sampler;
  Guide& guide;
  const Guidance& guidance;
  const Start& start;
  at::Tensor latents;                          // [image tokens, channels], on the first and the last stage
  std::vector<schedulers::History> histories;  // of each band
  at::Tensor noise;                            // that this step adds, of all bands
};

PipefusionLoop::PipefusionLoop(comm::Group& stages, const TokenSplit& split, std::int64_t token_rank,
                               SplitAttention& attention, const Shape& shape, at::TensorOptions options)
    : stages_(stages),
      split_(split),
      token_rank_(token_rank),
      attention_(attention),
      shape_(shape),
      options_(options),
      states_(stages.allocate(first() ? 0
                                      : state_rows(shape.branches, 0) * shape.width *
                                            static_cast<std::int64_t>(options.dtype().itemsize()))),
      latents_(stages.allocate(first() ? rows_before(split.bands()) * shape.channels *
                                             static_cast<std::int64_t>(options.dtype().itemsize())
                                       : 0)) {
  XDIT_ASSERT(stages.size() > 1);
  // Every place of the buffers is free: senders never wait for a receiver that is busy elsewhere.
  const comm::Stream stream = current_stream(options.device());
  for (std::int64_t i = 0; i < split.bands(); ++i) {
    if (first()) latents_.post({stages.size() - 1}, stream);
    for (std::int64_t branch = 0; !first() && branch < shape.branches; ++branch)
      states_.post({stages.rank() - 1}, stream);
  }
}

std::int64_t PipefusionLoop::rows_before(std::int64_t band) const {
  return split_.tokens(token_rank_, {false, {0, band}});
}

// Where a band's state begins in states_: the text's rows go with the first band.
std::int64_t PipefusionLoop::state_rows(std::int64_t branch, std::int64_t band) const {
  const std::int64_t text = split_.tokens(token_rank_, {true, {0, 0}});
  return branch * (text + rows_before(split_.bands())) + (band == 0 ? 0 : text + rows_before(band));
}

// A transfer a band, so that whoever waits for one band finds it whole. `text` rows go with the first band.
void PipefusionLoop::send(comm::PeerBuffer& to, int peer, const at::Tensor& rows, Range bands,
                          std::int64_t first_row, std::int64_t text, const char* operation) const {
  const at::Tensor packed = rows.contiguous();
  const std::int64_t row_bytes = packed.size(1) * static_cast<std::int64_t>(packed.element_size());
  const auto* const source = static_cast<const std::byte*>(packed.const_data_ptr());
  std::int64_t row = 0;
  for (std::int64_t band = bands.first; band < bands.end(); ++band) {
    const std::int64_t count = rows_before(band + 1) - rows_before(band) + (band == 0 ? text : 0);
    const comm::Put put{.peer = peer,
                        .source = source + row * row_bytes,
                        .rows = 1,
                        .row_bytes = count * row_bytes,
                        .source_stride = 0,
                        .offset = (first_row + row) * row_bytes};
    to.put({&put, 1}, {peer}, current_stream(options_.device()), operation);
    row += count;
  }
}

at::Tensor PipefusionLoop::receive(comm::PeerBuffer& from, int peer, Range bands, std::int64_t first_row,
                                   std::int64_t rows, std::int64_t columns, const char* operation) const {
  for (std::int64_t i = 0; i < bands.count; ++i)
    from.arrive({peer}, current_stream(options_.device()), operation);
  const std::int64_t row = columns * static_cast<std::int64_t>(options_.dtype().itemsize());
  return at::from_blob(from.data() + first_row * row, {rows, columns}, options_);
}

void PipefusionLoop::collect(Picture& picture, Range bands) {
  const std::int64_t row = rows_before(bands.first);
  const std::int64_t rows = rows_before(bands.end()) - row;
  const int peer = stages_.size() - 1;
  picture.latents.narrow(0, row, rows)
      .copy_(receive(latents_, peer, bands, row, rows, shape_.channels, "latents"));
  for (std::int64_t i = 0; i < bands.count; ++i) latents_.post({peer}, current_stream(options_.device()));
}

void PipefusionLoop::step(Picture& picture, std::int64_t step, Range bands, const at::Tensor& velocity) {
  const std::int64_t begin = rows_before(bands.first);
  if (bands.first == 0) picture.noise = drawn(picture.sampler, step, picture.start);
  for (std::int64_t band = bands.first; band < bands.end(); ++band) {
    const std::int64_t row = rows_before(band);
    const std::int64_t rows = rows_before(band + 1) - row;
    const at::Tensor latents = picture.latents.narrow(0, row, rows);
    latents.copy_(
        picture.sampler.step(step, latents.clone(), velocity.narrow(0, row - begin, rows),
                             picture.noise.defined() ? picture.noise.narrow(0, row, rows) : picture.noise,
                             picture.histories.at(static_cast<std::size_t>(band))));
  }
  const at::Tensor now = picture.latents.narrow(0, begin, rows_before(bands.end()) - begin);
  send(latents_, 0, now, bands, begin, 0, "latents");
}

void PipefusionLoop::run_part(Picture& picture, std::int64_t step, const TokenPart& part) {
  const Range bands = part.bands;
  const std::int64_t row = rows_before(bands.first);
  const std::int64_t rows = rows_before(bands.end()) - row;
  const std::int64_t text = part.text ? split_.tokens(token_rank_, {true, {0, 0}}) : 0;
  if (first() && step > picture.start.first) collect(picture, bands);
  std::vector<at::Tensor> predictions;
  std::int64_t index = 0;
  for (const models::Branch* branch : picture.guide.branches(picture.guidance)) {
    attention_.select(part, index);
    const std::int64_t state = state_rows(index, bands.first);
    const at::Tensor input =
        first() ? picture.sampler.model_input(step, picture.latents.narrow(0, row, rows))
                : receive(states_, stages_.rank() - 1, bands, state, text + rows, shape_.width, "state");
    picture.denoiser.select(*branch, step);
    const at::Tensor output =
        picture.denoiser.predict(*branch, input, {.text = part.text, .image_first = row});
    if (last())
      predictions.push_back(output);
    else
      send(states_, stages_.rank() + 1, output, bands, state, text, "state");
    for (std::int64_t i = 0; !first() && i < bands.count; ++i)
      states_.post({stages_.rank() - 1}, current_stream(options_.device()));
    ++index;
  }
  if (last()) this->step(picture, step, bands, picture.guide.combine(predictions, picture.guidance));
}

at::Tensor PipefusionLoop::run(models::Denoiser& denoiser, const schedulers::Sampler& sampler, Guide& guide,
                               const Guidance& guidance, const Start& start, const OnStep& on_step) {
  Picture picture{denoiser,
                  sampler,
                  guide,
                  guidance,
                  start,
                  start.latents.clone(),
                  std::vector<schedulers::History>(static_cast<std::size_t>(split_.bands())),
                  {}};
  const auto steps = static_cast<std::int64_t>(sampler.timesteps().size());
  const std::int64_t whole = start.first + sampler.evaluations(shape_.warmup);
  if (guidance.rescale != 0 && whole < steps)
    throw Error(ExitCode::kUsage, "guidance rescale needs whole pictures, which PipeFusion's bands are not",
                "sampling.guidance_rescale", "0, or without --pipefusion");
  for (std::int64_t i = start.first; i < steps; ++i) {
    if (i < whole)
      run_part(picture, i, split_.whole());
    else
      for (std::int64_t band = 0; band < split_.bands(); ++band)
        run_part(picture, i, {.text = band == 0, .bands = {band, 1}});
    // The first stage has this step's latents when it has begun the next one.
    if (i > start.first) on_step(i - start.first, first() ? picture.latents.clone() : at::Tensor());
  }
  if (first()) collect(picture, {0, split_.bands()});
  on_step(steps - start.first, first() ? picture.latents : at::Tensor());

  const auto bytes = static_cast<std::int64_t>(picture.latents.nbytes());
  if (!result_) result_ = stages_.allocate(bytes);
  stages_.broadcast(picture.latents.const_data_ptr(), bytes, 0, *result_, current_stream(options_.device()));
  return at::from_blob(result_->data(), picture.latents.sizes(), options_).clone();
}

}  // namespace xdit::parallel
