// Modes that change the picture: how far.
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <sys/mman.h>

#include "tests/catch.h"
#include "tests/comm/ranks.h"
#include "tests/split/denoise.h"

namespace xdit::tests {
namespace {

double relative(const at::Tensor& x, const at::Tensor& reference) {
  const at::Tensor truth = reference.to(at::kDouble);
  return ((x.to(at::kDouble) - truth).norm() / truth.norm()).item<double>();
}

// One forward in bfloat16 (a step of the loop is linear in it) against one rank's own error.
void check_rounding(Run run) {
  run.steps = 1;
  run.type = at::kBFloat16;
  const models::Model model = open_model(run);
  const std::shared_ptr<const comm::Job> job = comm::Job::create(static_cast<int>(run.ranks));
  const Failures failures = run_processes(static_cast<int>(run.ranks), [&](int rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    const at::Tensor mine = denoise(run, model, rank, job);
    Run exact = run;
    exact.type = at::kFloat;
    exact.quantize = config::Quantize::kNone;
    const at::Tensor truth = denoise_alone(exact, model);
    const double alone = relative(denoise_alone(run, model), truth);
    const double error = relative(mine, truth);
    expect(error > 0 && error <= 1.1 * alone,
           "error " + std::to_string(error) + ", one rank's " + std::to_string(alone));
  });
  CAPTURE(run.model, run.ranks, run.parallel.ring.value_or(0), run.parallel.tensor.value_or(0),
          run.parallel.ulysses.value_or(0));
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

TEST_CASE("a ring and cut weights round as one rank does") {
  for (const std::int64_t ring : {2, 3, 5, 8}) check_rounding({.parallel = {.ring = ring}, .ranks = ring});
  check_rounding({.model = "tiny-schnell", .parallel = {.ulysses = 2, .ring = 3}, .ranks = 6});
  check_rounding({.parallel = {.tensor = 3}, .ranks = 3});
  check_rounding({.parallel = {.tensor = 3}, .quantize = config::Quantize::kFp8, .ranks = 3});
  for (const std::int64_t tensor : {2, 4})
    check_rounding({.model = "tiny-schnell", .parallel = {.tensor = tensor}, .ranks = tensor});
  check_rounding({.model = "tiny-schnell", .parallel = {.ulysses = 2, .tensor = 2}, .ranks = 4});
  check_rounding({.model = "tiny-schnell", .parallel = {.gather = 2, .tensor = 2}, .ranks = 4});
}

// The relative distance of a staged run to the exact one, the same on every rank.
double distance(const Run& run) {
  const models::Model model = open_model(run);
  const std::shared_ptr<const comm::Job> job = comm::Job::create(static_cast<int>(run.ranks));
  double* const shared =
      static_cast<double*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const Failures failures = run_processes(static_cast<int>(run.ranks), [&](int rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    const at::Tensor mine = denoise(run, model, rank, job);
    shared[rank] = relative(mine, denoise_alone(run, model));
  });
  for (const std::string& failure : failures) FAIL_CHECK(failure);
  for (std::int64_t rank = 1; rank < run.ranks; ++rank) CHECK(shared[rank] == shared[0]);
  return shared[0];
}

TEST_CASE("stages on bands come close, the closer the longer they warm up") {
  Run run{.parallel = {.pipefusion = 2}, .steps = 4, .ranks = 2};
  const double once = distance(run);
  run.parallel.pipefusion_warmup = 3;
  const double long_warmup = distance(run);
  CHECK(once > long_warmup);
  CHECK(long_warmup > 0);
  CHECK(once < 0.2);
  run.parallel.pipefusion_warmup = 4;
  CHECK(distance(run) == 0);
}

// Where keys are kept inside a stage does not change them: the same bands on more ranks give the same bits.
TEST_CASE("a stage's tokens and heads are spread exactly") {
  Run run{.parallel = {.pipefusion = 2}, .steps = 3, .ranks = 2};
  const double alone = distance(run);
  run.parallel.gather = 2;
  run.ranks = 4;
  CHECK(distance(run) == alone);
  run.parallel.gather = {};
  run.parallel.ulysses = 3;
  run.ranks = 6;
  CHECK(distance(run) == alone);
}

}  // namespace
}  // namespace xdit::tests
