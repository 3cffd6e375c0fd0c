#include "pipeline/marks.h"

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <sys/resource.h>

#include <deque>
#include <vector>

namespace xdit::pipeline {

struct Marks::Moments {
  bool on_gpu = false;
  std::deque<at::cuda::CUDAEvent> events;
  std::vector<double> seconds;  // of each mark on the CPU; on a GPU of the first, waited for
};

Marks::Marks(c10::Device device) : moments_(std::make_unique<Moments>()) {
  moments_->on_gpu = device.is_cuda();
}
Marks::~Marks() = default;

std::size_t Marks::count() const {
  return moments_->on_gpu ? moments_->events.size() : moments_->seconds.size();
}

bool Marks::queued() const {
  return moments_->on_gpu;
}

void Marks::add() {
  Moments& m = *moments_;
  if (!m.on_gpu) {
    m.seconds.push_back(now_s());
    return;
  }
  m.events.emplace_back(cudaEventDefault);  // with timing
  m.events.back().record();
  if (m.events.size() == 1) {  // ties the device's clock to ours
    m.events.front().synchronize();
    m.seconds.push_back(now_s());
  }
}

void Marks::wait(std::size_t mark) {
  if (moments_->on_gpu) moments_->events.at(mark).synchronize();
}

double Marks::at_s(std::size_t mark) {
  Moments& m = *moments_;
  if (!m.on_gpu) return m.seconds.at(mark);
  wait(mark);
  return m.seconds.front() + static_cast<double>(m.events.front().elapsed_time(m.events.at(mark))) / 1000;
}

std::uint64_t peak_device_bytes(c10::Device device) {
  if (!device.is_cuda()) return 0;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return static_cast<std::uint64_t>(stats.reserved_bytes[0].peak);
}

std::uint64_t peak_host_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

void synchronise(c10::Device device) {
  if (!device.is_cuda()) return;
  const c10::cuda::CUDAGuard here(device);
  c10::cuda::device_synchronize();
}

void release_cached_memory(c10::Device device) {
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::emptyCache();
}

}  // namespace xdit::pipeline
