#pragma once
#include <c10/core/Device.h>

#include <chrono>
#include <cstddef>
#include <memory>

namespace xdit::pipeline {

/// steady_clock in seconds.
[[nodiscard]] inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Moments of a device's work, without waiting for it: on a GPU events on the current stream.
class Marks {
 public:
  explicit Marks(c10::Device device);
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;
  ~Marks();
  void add();                   ///< after the work queued so far
  void wait(std::size_t mark);  ///< until the device is there
  /// When the device was there, on now_s's clock; waits for it.
  [[nodiscard]] double at_s(std::size_t mark);
  [[nodiscard]] std::size_t count() const;
  [[nodiscard]] double added_s(std::size_t mark) const;  ///< when it was added, on now_s's clock
  [[nodiscard]] bool queued() const;                     ///< work is queued, and not done when a call returns

 private:
  struct Moments;
  std::unique_ptr<Moments> moments_;
};

/// Bytes that the device's allocator has held at most since the call before; 0 on the CPU.
[[nodiscard]] std::uint64_t take_peak_device_bytes(c10::Device device);
/// This process's host memory at most.
[[nodiscard]] std::uint64_t peak_host_bytes();
/// Returns when the device has done all that was queued.
void synchronise(c10::Device device);
/// Makes a GPU, and its context, this thread's.
void use(c10::Device device);
/// Gives memory that no tensor holds back to the device.
void release_cached_memory(c10::Device device);

}  // namespace xdit::pipeline
