#pragma once
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/stop.h"
#include "nn/weights.h"
#include "parallel/network_loader.h"

namespace xdit::pipeline {

/// Networks on their way to the device, one after the other, while their rank does something else.
class Arrivals {
 public:
  /// Both outlive it.
  Arrivals(parallel::NetworkLoader& loader, const StopToken& stop) : loader_(loader), stop_(stop) {}
  /// The network's weights, which hold anything until wait() has returned and must live until then.
  [[nodiscard]] std::unique_ptr<nn::Weights> expect(const std::string& component);
  void start();  ///< to read them, in the order in which they are expected
  /// Until all are here; throws what has gone wrong. Collective over the ranks that hold a network. Ranks
  /// give each other their shares here and not while they read: GPUs that wait for one another in two threads
  /// at once can wait for ever, since much that a host asks for (memory, a kernel's first launch) waits for
  /// them.
  void wait();
  /// Seconds on now_s's clock: of reading and, after it, of giving each other shares.
  [[nodiscard]] const std::vector<std::pair<double, double>>& stretches() const { return stretches_; }

 private:
  parallel::NetworkLoader& loader_;
  const StopToken& stop_;
  std::vector<parallel::NetworkLoader::Arriving> expected_;  ///< without the weights
  double start_s_ = 0;
  std::vector<std::pair<double, double>> stretches_;
  std::future<void> read_;
};

}  // namespace xdit::pipeline
