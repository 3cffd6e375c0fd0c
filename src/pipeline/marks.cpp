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
  std::vector<double> added;
  double first_s = 0;  // when a GPU was at the first
};

Marks::Marks(c10::Device device) : moments_(std::make_unique<Moments>()) {
  moments_->on_gpu = device.is_cuda();
}
Marks::~Marks() = default;

std::size_t Marks::count() const {
  return moments_->added.size();
}

double Marks::added_s(std::size_t mark) const {
  return moments_->added.at(mark);
}

bool Marks::queued() const {
  return moments_->on_gpu;
}

void Marks::add() {
  Moments& m = *moments_;
  m.added.push_back(now_s());
  if (!m.on_gpu) return;
  m.events.emplace_back(cudaEventDefault);  // with timing
  m.events.back().record();
  if (m.events.size() == 1) {  // ties the device's clock to ours
    m.events.front().synchronize();
    m.first_s = now_s();
  }
}

void Marks::wait(std::size_t mark) {
  if (moments_->on_gpu) moments_->events.at(mark).synchronize();
}

double Marks::at_s(std::size_t mark) {
  Moments& m = *moments_;
  if (!m.on_gpu) return m.added.at(mark);
  wait(mark);
  return m.first_s + static_cast<double>(m.events.front().elapsed_time(m.events.at(mark))) / 1000;
}

std::uint64_t take_peak_device_bytes(c10::Device device) {
  if (!device.is_cuda()) return 0;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
  return static_cast<std::uint64_t>(stats.reserved_bytes[0].peak);
}

std::uint64_t peak_host_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

void use(c10::Device device) {
  if (!device.is_cuda()) return;
  c10::cuda::set_device(device.index());
  synchronise(device);
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
