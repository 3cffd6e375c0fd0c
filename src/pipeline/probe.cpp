#include "pipeline/probe.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <exception>

namespace xdit::pipeline {
namespace {

constexpr std::int64_t kBytes = std::int64_t{1} << 28U;
constexpr std::int64_t kSide = 4096;  // of a square product

at::TensorOptions on(std::int64_t gpu) {
  return at::TensorOptions()
      .device(at::Device(at::kCUDA, static_cast<at::DeviceIndex>(gpu)))
      .dtype(at::kByte);
}

// Seconds of one `work`, the best of a few turns of several: a GPU that rested must wake up.
template <class F>
double seconds_of(std::initializer_list<std::int64_t> gpus, std::int64_t times, F&& work) {
  constexpr int kTurns = 4;
  const c10::impl::VirtualGuardImpl guard(at::kCUDA);
  const auto wait = [&] {
    for (const std::int64_t gpu : gpus) guard.synchronizeDevice(static_cast<at::DeviceIndex>(gpu));
  };
  double best = 1e9;
  for (int turn = 0; turn < kTurns; ++turn) {
    wait();
    const auto begun = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < times; ++i) work();
    wait();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begun;
    best = std::min(best, passed.count() / static_cast<double>(times));
  }
  return best;
}

void try_first(Probe& probe) {
  const at::Tensor a = at::randn({kSide, kSide}, on(0).dtype(at::kBFloat16));
  const at::Tensor b = at::randn({kSide, kSide}, on(0).dtype(at::kBFloat16));
  at::Tensor product = at::empty_like(a);
  const double side = kSide;
  probe.product = 2 * side * side * side / seconds_of({0}, 50, [&] { at::mm_out(product, a, b); });
  const at::Tensor from = at::empty({kBytes}, on(0));
  at::Tensor to = at::empty_like(from);
  probe.memory = 2.0 * kBytes / seconds_of({0}, 10, [&] { to.copy_(from); });
}

double host_rate(std::int64_t gpu) {
  const at::Tensor from = at::zeros({kBytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
  at::Tensor to = at::empty({kBytes}, on(gpu));
  return kBytes / seconds_of({gpu}, 4, [&] { to.copy_(from, /*non_blocking=*/true); });
}

// By a copy, or by a kernel that stores: which of them is faster depends on the link.
double pair_rate(std::int64_t from, std::int64_t to) {
  constexpr std::int64_t kRows = 4096;
  constexpr std::int64_t kRowBytes = kBytes / kRows;
  const at::Tensor source = at::zeros({kBytes}, on(from));
  at::Tensor target = at::empty({kBytes}, on(to));
  const auto inner = [](const at::Tensor& bytes) {  // rows with gaps, of which no copy is made
    return bytes.view(at::kComplexDouble).view({kRows, -1}).narrow(1, 0, kRowBytes / 16 - 1);
  };
  at::Tensor rows = inner(target);
  const double copies = seconds_of({from, to}, 4, [&] { target.copy_(source, /*non_blocking=*/true); });
  const double stores = seconds_of({from, to}, 4, [&] { rows.copy_(inner(source), /*non_blocking=*/true); });
  return std::max(kBytes / copies, kBytes / stores);
}

std::string fault_of(const std::exception& error) {
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch != nullptr ? torch->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace
}  // namespace xdit::pipeline

// The rank library's other entry.
extern "C" __attribute__((visibility("default"))) void xdit_try_gpus(xdit::pipeline::Probe& probe,
                                                                     std::int64_t gpus) {
  using namespace xdit::pipeline;
  int version = 0;
  if (auto* const nccl = reinterpret_cast<int (*)(int*)>(::dlsym(RTLD_DEFAULT, "ncclGetVersion")))
    if (nccl(&version) == 0) probe.nccl = version;
  if (!at::hasCUDA()) return;
  const auto count = static_cast<std::size_t>(gpus);
  probe.host.resize(count);
  probe.faults.resize(count);
  probe.pairs.assign(count, std::vector<double>(count));
  const auto trying = [&](std::int64_t gpu, auto&& work) {
    std::string& fault = probe.faults[static_cast<std::size_t>(gpu)];
    if (!fault.empty()) return;
    try {
      work();
    } catch (const std::exception& error) {
      fault = fault_of(error);
    }
  };
  for (std::int64_t i = 0; i < gpus; ++i)
    trying(i, [&] {
      if (i == 0) probe.cuda = at::detail::getCUDAHooks().versionCUDART();
      if (i == 0) try_first(probe);
      probe.host[static_cast<std::size_t>(i)] = host_rate(i);
    });
  for (std::int64_t i = 0; i < gpus; ++i)
    for (std::int64_t j = 0; j < gpus; ++j)
      if (i != j && probe.faults[static_cast<std::size_t>(j)].empty())
        trying(i, [&] {
          probe.pairs[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] = pair_rate(i, j);
        });
}
