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
  Batch(const std::vector<std::filesystem::path>& files,
        std::span<const std::unique_ptr<weights::Destination>> threads, const LoadingStream& stream,
        std::uint64_t& bytes_read)
      : files_(files), threads_(threads), stream_(stream), bytes_read_(bytes_read) {}

  void add(const weights::Piece& piece, const at::Tensor& parameter) {
    at::Tensor to = parameter.view({-1}).narrow(0, piece.first_element, piece.elements);
    const at::ScalarType type = torch_type(piece.dtype);
    if (type != parameter.scalar_type()) {
      if (cast_bytes_ > 0 && cast_bytes_ + static_cast<std::int64_t>(piece.bytes) > kCastBytes) flush();
      cast_bytes_ += static_cast<std::int64_t>(piece.bytes);
      casts_.push_back({at::empty({piece.elements}, to.options().dtype(type)), to});
      to = casts_.back().from;
    }
    reads_.push_back({.file = piece.file, .offset = piece.offset, .bytes = piece.bytes, .to = bytes_of(to)});
  }

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
  std::span<const std::unique_ptr<weights::Destination>> threads_;
  const LoadingStream& stream_;
  std::uint64_t& bytes_read_;
  std::vector<weights::Read> reads_;
  std::vector<Cast> casts_;
  std::int64_t cast_bytes_ = 0;
};

}  // namespace

Tensors load(const models::Network& network, const weights::ModelFiles& files, at::ScalarType dtype,
             at::Device device, std::int64_t threads, std::uint64_t& bytes_read) {
  std::vector<std::unique_ptr<weights::Destination>> destinations;
  for (std::int64_t i = 0; i < threads; ++i)
    destinations.push_back(device.is_cuda() ? device_destination(device) : weights::host_destination());

  const LoadingStream stream(device);
  Tensors tensors;
  Batch batch(files.components.at(network.component).table.files, destinations, stream, bytes_read);
  for (const weights::Placed& placed : network.placed) {
    const at::Tensor parameter = at::empty(placed.shape, at::TensorOptions().dtype(dtype).device(device));
    for (const weights::Piece& piece : placed.pieces) batch.add(piece, parameter);
    tensors.emplace(placed.name, parameter);
  }
  batch.flush();
  return tensors;
}

Tensors draw(const models::Network& network, at::ScalarType dtype, at::Device device) {
  const LoadingStream stream(device);
  Tensors tensors;
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(0);
  for (const weights::Parameter& parameter : network.parameters) {
    const bool vector = parameter.shape.size() == 1;
    const bool scale = vector && parameter.name.ends_with("weight");
    const std::int64_t fan_in = vector ? 1
                                       : std::reduce(parameter.shape.begin() + 1, parameter.shape.end(),
                                                     std::int64_t{1}, std::multiplies<>());
    const bool table = parameter.name.ends_with("embedding.weight") || parameter.name == "shared.weight";
    const double deviation = vector ? 0.02 : table ? 1.0 : 1 / std::sqrt(static_cast<double>(fan_in));
    at::Tensor tensor = at::empty(parameter.shape, at::TensorOptions().dtype(dtype).device(device));
    tensor.normal_(scale ? 1.0 : 0.0, deviation, generator);
    tensors.emplace(parameter.name, tensor);
  }
  stream.synchronise();
  return tensors;
}

}  // namespace xdit::parallel
