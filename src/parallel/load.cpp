#include "parallel/load.h"

#include <ATen/ATen.h>
#include <ATen/core/Generator.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "core/error.h"
#include "parallel/device_destination.h"
#include "weights/reader.h"

namespace xdit::parallel {
namespace {

constexpr std::int64_t kCastBytes = std::int64_t{1} << 30U;

std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.mutable_data_ptr());
}

// A piece in the file's dtype that waits to be cast into its parameter.
struct Cast {
  at::Tensor from;
  at::Tensor to;
};

// Pieces are added until their casts would need too much memory, then read together.
class Batch {
 public:
  Batch(const Loading& loading, std::uint64_t& bytes_read)
      : files_(loading.model.files.components.at(loading.network.component).table.files),
        stream_(loading.device),
        bytes_read_(bytes_read) {
    for (std::int64_t i = 0; i < loading.threads; ++i)
      threads_.push_back(loading.device.is_cuda() ? device_destination(loading.device)
                                                  : weights::host_destination());
  }

  // `memory` holds elements from `first` on of the parameter that the piece is of.
  void add(const weights::Piece& piece, const at::Tensor& memory, std::int64_t first) {
    at::Tensor to = memory.narrow(0, piece.first_element - first, piece.elements);
    const at::ScalarType type = torch_type(piece.dtype);
    if (type != memory.scalar_type()) {
      if (cast_bytes_ > 0 && cast_bytes_ + static_cast<std::int64_t>(piece.bytes) > kCastBytes) flush();
      cast_bytes_ += static_cast<std::int64_t>(piece.bytes);
      casts_.push_back({at::empty({piece.elements}, to.options().dtype(type)), to});
      to = casts_.back().from;
      ++memories_;
    }
    reads_.push_back({.file = piece.file,
                      .offset = piece.offset,
                      .bytes = piece.bytes,
                      .to = bytes_of(to),
                      .memory = memories_});
  }
  void next_memory() { ++memories_; }

  void flush() {
    weights::read_all(files_, reads_, threads_);
    for (const Cast& cast : casts_) cast.to.copy_(cast.from);
    stream_.synchronise();  // the next reads may go where these casts came from
    for (const weights::Read& read : reads_) bytes_read_ += read.bytes;
    reads_.clear();
    casts_.clear();
    cast_bytes_ = 0;
  }

 private:
  const std::vector<std::filesystem::path>& files_;
  LoadingStream stream_;
  std::vector<std::unique_ptr<weights::Destination>> threads_;
  std::uint64_t& bytes_read_;
  std::vector<weights::Read> reads_;
  std::vector<Cast> casts_;
  std::int64_t cast_bytes_ = 0;
  std::int32_t memories_ = 0;
};

// What is held of one of the tensors that a parameter stacks.
struct HeldPart {
  std::vector<Rectangle> rectangles;
  Range range;  // in the held parameter
};
HeldPart held_of(const HeldParameter& held, Range part) {
  HeldPart of;
  for (const Rectangle& r : held.rectangles) {
    if (comm::overlap({r.source, 1}, part).count == 0) continue;
    of.rectangles.push_back(r);
    of.range = {of.rectangles.front().to, of.range.count + r.rows * r.count};
  }
  return of;
}

// The held elements of `whole`, a parameter's from `first` on.
at::Tensor taken(const at::Tensor& whole, std::int64_t first, const HeldPart& held) {
  at::Tensor part = at::empty({held.range.count}, whole.options());
  for (const Rectangle& r : held.rectangles) {
    const auto view = [&](const at::Tensor& of, std::int64_t begin, std::int64_t stride) {
      return of.as_strided({r.rows, r.count}, {r.rows == 1 ? r.count : stride, 1}, begin);
    };
    view(part, r.to - held.range.first, r.to_stride).copy_(view(whole, r.source - first, r.source_stride));
  }
  return part;
}

void draw_into(const at::Tensor& whole, const weights::Parameter& parameter, at::Generator& generator) {
  const bool vector = parameter.shape.size() == 1;
  const bool scale = vector && parameter.name.ends_with("weight");
  const std::int64_t fan_in = vector ? 1
                                     : std::reduce(parameter.shape.begin() + 1, parameter.shape.end(),
                                                   std::int64_t{1}, std::multiplies<>());
  const bool table = parameter.name.ends_with("embedding.weight") || parameter.name == "shared.weight";
  const double deviation = vector ? 0.02 : table ? 1.0 : 1 / std::sqrt(static_cast<double>(fan_in));
  whole.normal_(scale ? 1.0 : 0.0, deviation, generator);
}

}  // namespace

at::ScalarType torch_type(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return at::kDouble;
    case DType::kF32:
      return at::kFloat;
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    default:
      broken_invariant("weights are floating point", __FILE__, __LINE__);
  }
}

at::ScalarType held_dtype(const models::Network& network, at::ScalarType run) {
  return network.not_in_float16 && run == at::kHalf ? at::kFloat : run;
}

std::vector<std::pair<std::int64_t, at::Tensor>> WeightMemory::parts(Range range) const {
  std::vector<std::pair<std::int64_t, at::Tensor>> result;
  const std::int64_t end = range.first + range.count;
  auto at = tensors_.upper_bound(range.first);
  if (at != tensors_.begin()) --at;
  for (; at != tensors_.end() && at->first < end; ++at) {
    const std::int64_t first = std::max(range.first, at->first);
    const std::int64_t count = std::min(end, at->first + at->second.numel()) - first;
    if (count > 0) result.emplace_back(first, at->second.narrow(0, first - at->first, count));
  }
  return result;
}

std::vector<Range> WeightMemory::ranges() const {
  std::vector<Range> all;
  for (const auto& [first, tensor] : tensors_) all.push_back({first, tensor.numel()});
  return all;
}

void read(const Loading& loading, const std::vector<Range>& ranges, const WeightMemory& memory,
          std::uint64_t& bytes_read) {
  std::map<std::string, const weights::Placed*> placed;
  for (const weights::Placed& one : loading.network.placed) placed[one.name] = &one;
  Batch batch(loading, bytes_read);
  for (const Range& range : ranges)
    for (const HeldParameter& held : loading.held)
      for (const auto& [first, tensor] : memory.parts(comm::overlap(range, {held.offset, held.elements()}))) {
        batch.next_memory();
        const Range part{first - held.offset, tensor.numel()};
        for (const weights::Piece& piece : pieces_of(held, *placed.at(held.name), part))
          batch.add(piece, tensor, part.first);
      }
  batch.flush();
}

void draw(const Loading& loading, const WeightMemory& memory) {
  const LoadingStream stream(loading.device);
  const at::TensorOptions options = at::TensorOptions().dtype(loading.dtype).device(loading.device);
  at::Generator generator = at::globalContext().defaultGenerator(loading.device).clone();
  generator.set_current_seed(0);
  auto held = loading.held.begin();
  for (const weights::Parameter& parameter : loading.network.parameters) {
    const bool is_held = held != loading.held.end() && held->name == parameter.name;
    std::int64_t first = 0;
    for (const weights::Wanted& part : parameter.parts) {  // one by one: the largest are several GB together
      const std::int64_t elements =
          std::reduce(part.shape.begin(), part.shape.end(), std::int64_t{1}, std::multiplies<>());
      const HeldPart mine = is_held ? held_of(*held, {first, elements}) : HeldPart{};
      const std::int64_t offset = is_held ? held->offset + mine.range.first : 0;
      const auto places = memory.parts({offset, mine.range.count});
      const bool in_place = places.size() == 1 && places[0].second.numel() == elements;
      const at::Tensor whole = in_place ? places[0].second : at::empty({elements}, options);
      draw_into(whole, parameter, generator);  // also what is not held: the next follow in the generator
      if (!in_place && !places.empty()) {
        const at::Tensor here = taken(whole, first, mine);
        for (const auto& [at, tensor] : places) tensor.copy_(here.narrow(0, at - offset, tensor.numel()));
      }
      first += elements;
    }
    if (is_held) ++held;
  }
  stream.synchronise();
}

Tensors allocate(const Loading& loading, bool sharded, WeightMemory& memory) {
  const LoadingStream stream(loading.device);
  Tensors tensors;
  for (const HeldParameter& held : loading.held) {
    if (sharded && held.is_sharded()) continue;
    const at::Tensor tensor =
        at::empty(held.shape, at::TensorOptions().dtype(loading.dtype).device(loading.device));
    memory.add(held.offset, tensor);
    tensors.emplace(held.name, tensor);
  }
  return tensors;
}

Tensors load_whole(const models::Model& model, const models::Network& network, at::ScalarType dtype,
                   at::Device device, std::int64_t threads, std::uint64_t& bytes_read) {
  const std::vector<HeldParameter> held = held_parameters(network, kAllBlocks, 1, 0);
  const Loading loading{model, network, held, dtype, device, threads};
  WeightMemory memory;
  Tensors tensors = allocate(loading, /*sharded=*/false, memory);
  if (model.dummy)
    draw(loading, memory);
  else
    read(loading, memory.ranges(), memory, bytes_read);
  return tensors;
}

}  // namespace xdit::parallel
