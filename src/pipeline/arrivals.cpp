#include "pipeline/arrivals.h"

#include <c10/core/InferenceMode.h>

#include <utility>

#include "pipeline/marks.h"

namespace xdit::pipeline {

std::unique_ptr<nn::Weights> Arrivals::expect(const std::string& component) {
  if (fills_.empty()) start_s_ = now_s();
  parallel::NetworkLoader::Arriving arriving = loader_.expect(component);
  fills_.push_back(std::move(arriving.fill));
  return std::move(arriving.weights);
}

void Arrivals::start() {
  done_ = std::async(std::launch::async, [this] {
    const c10::InferenceMode no_gradients;  // counts for one thread
    for (const auto& fill : fills_) {
      stop_.check();
      fill();
    }
    end_s_ = now_s();
  });
}

void Arrivals::wait() {
  if (done_.valid()) done_.get();
}

}  // namespace xdit::pipeline
