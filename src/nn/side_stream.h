#pragma once
#include <c10/core/Device.h>
#include <c10/core/StreamGuard.h>

#include <cstddef>
#include <cstdint>
#include <memory>

struct CUstream_st;  // cudaStream_t points to one

namespace xdit::nn {

/// Of a stream's kernels, where those of several wait for room. The default stream's is low.
enum class Priority : std::int8_t { kHigh = -2, kNormal = -1, kLow = 0 };

/// A stream beside the current one, made with the first `mark`. On the CPU there is none: all is done at
/// once, in order. Torch gives memory that is let go to what its stream does next: what both streams use is
/// taken before `begin` and stays until `wait`.
class SideStream {
 public:
  SideStream();  ///< none
  explicit SideStream(c10::Device device, Priority priority = Priority::kLow);
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;
  ~SideStream();
  [[nodiscard]] CUstream_st* stream() const;  ///< null where there is none
  void mark();                                ///< where the current stream is now
  void follow();                              ///< what follows comes after the last `mark`
  void begin() { mark(), follow(); }
  /// As long as the result lives, Torch works on this stream.
  [[nodiscard]] c10::OptionalStreamGuard enter() const;
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes);
  void end();
  void wait();  ///< the current stream goes on after the last `end`
  void join() { end(), wait(); }

 private:
  struct Made;
  c10::Device device_{c10::kCPU};
  Priority priority_ = Priority::kLow;
  std::unique_ptr<Made> made_;
};

}  // namespace xdit::nn
