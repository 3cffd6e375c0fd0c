#pragma once
#include <c10/core/Device.h>

#include <memory>

#include "weights/reader.h"

namespace xdit::parallel {

/// A reading thread's way to a GPU: two pinned buffers that are filled and copied in turn, on a stream of
/// their own.
[[nodiscard]] std::unique_ptr<weights::Destination> device_destination(c10::Device device);

/// While it lives, this thread allocates and computes on a stream of its own, so that no memory of a load was
/// another stream's a moment ago. Nothing on a CPU.
class LoadingStream {
 public:
  explicit LoadingStream(c10::Device device);
  LoadingStream(const LoadingStream&) = delete;
  LoadingStream& operator=(const LoadingStream&) = delete;
  ~LoadingStream();
  void synchronise() const;  ///< returns when the thread's work on the device is done

 private:
  struct Guard;
  std::unique_ptr<Guard> guard_;
};

}  // namespace xdit::parallel
