#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <thread>

#include "comm/job.h"
#include "comm/peer_memory.h"
#include "cuda/peer_memory.h"

namespace xdit::comm {

/// What ranks on GPUs do in any memory that their GPUs reach: kernels in the order of the stream, which a
/// graph can capture.
class DeviceOperations : public PeerMemory {
 public:
  DeviceOperations(std::shared_ptr<const Job> job, int rank, int device, std::chrono::nanoseconds timeout);
  DeviceOperations(const DeviceOperations&) = delete;
  DeviceOperations& operator=(const DeviceOperations&) = delete;
  ~DeviceOperations() override;

  void copy(std::span<const Copy> copies, Stream stream) override;
  void copy_beside(std::span<const Copy> copies, Stream stream) override;
  void raise(std::span<const Flag> flags, Stream stream) override;
  void await(std::span<const Flag> flags, const char* operation, Stream stream) override;
  void sum(float* to, std::span<const float* const> terms, std::int64_t count, Stream stream) override;
  void label(std::span<const Label> labels, Stream stream) override;
  void land(std::span<const Landing> landings, Stream stream) override;
  void check() const override;
  [[nodiscard]] double waited_s() const override;

 protected:
  void enter() const;  ///< check(), and the device is this thread's
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int device() const { return device_; }

 private:
  struct FreeHost {
    void operator()(cuda::Watch* watch) const;
  };
  struct FreeDevice {
    void operator()(void* word) const;
  };
  void keep_watch(const std::stop_token& stop);
  [[nodiscard]] const std::uint32_t* dead() const { return dead_.get(); }

  std::shared_ptr<const Job> job_;
  int rank_;
  int device_;
  std::chrono::nanoseconds timeout_;
  std::unique_ptr<cuda::Watch, FreeHost> watch_;
  std::unique_ptr<std::uint32_t, FreeDevice> dead_;
  std::unique_ptr<unsigned long long, FreeDevice> waited_ns_;
  cuda::Waiting waiting_{};
  std::jthread watcher_;  // ends first
};

}  // namespace xdit::comm
