#include "pipeline/arrivals.h"

#include <c10/core/InferenceMode.h>

#include <utility>

#include "pipeline/marks.h"

namespace xdit::pipeline {

std::unique_ptr<nn::Weights> Arrivals::expect(const std::string& component) {
  if (expected_.empty()) start_s_ = now_s();
  return std::move(expected_.emplace_back(loader_.expect(component)).weights);
}

void Arrivals::start() {
  read_ = std::async(std::launch::async, [this] {
    const c10::InferenceMode no_gradients;  // counts for one thread
    for (const auto& one : expected_) {
      stop_.check();
      one.read();
    }
    stretches_.emplace_back(start_s_, now_s());
  });
}

void Arrivals::wait() {
  if (!read_.valid()) return;
  read_.get();
  const double read_s = now_s();
  for (const auto& one : expected_) one.exchange();
  stretches_.emplace_back(read_s, now_s());
  expected_.clear();  // what fills weights holds them
}

}  // namespace xdit::pipeline
