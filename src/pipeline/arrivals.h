#pragma once
#include <functional>
#include <future>
#include <memory>
#include <string>
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
  void start();  ///< to bring them, in the order in which they are expected
  void wait();   ///< until all are here; throws what has gone wrong. Nothing to do where none was started
  [[nodiscard]] double start_s() const { return start_s_; }
  [[nodiscard]] double end_s() const { return end_s_; }

 private:
  parallel::NetworkLoader& loader_;
  const StopToken& stop_;
  std::vector<std::function<void()>> fills_;
  double start_s_ = 0;
  double end_s_ = 0;
  std::future<void> done_;
};

}  // namespace xdit::pipeline
