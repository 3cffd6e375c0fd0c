// N ranks equal one, bit for bit: denoiser steps of the small FLUX models over grids of every exact mode.
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <cstdlib>

#include "tests/catch.h"
#include "tests/comm/ranks.h"
#include "tests/split/denoise.h"

namespace xdit::tests {
namespace {

using Parallel = config::RunSpec::Parallel;

void check_equal(const Run& run) {
  const models::Model model = open_model(run);
  const std::shared_ptr<const comm::Job> job = comm::Job::create(static_cast<int>(run.ranks));
  const Failures failures = run_processes(static_cast<int>(run.ranks), [&](int rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    const at::Tensor mine = denoise(run, model, rank, run.ranks == 1 ? nullptr : job);
    const at::Tensor all = denoise_alone(run, model);
    expect(all.isfinite().all().item<bool>(), "finite");
    expect(all.std().item<float>() > 0.1, "lively");
    expect(at::equal(mine, all), "equal to one rank");
  });
  const Parallel& p = run.parallel;
  CAPTURE(run.model, run.sampler, run.ranks, p.cfg.value_or(0), p.pipefusion.value_or(0),
          p.gather.value_or(0), p.ulysses.value_or(0), p.shard_weights, run.text, run.rows, run.columns,
          at::toString(run.type));
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

void check_dtypes(Run run) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    run.type = type;
    check_equal(run);
  }
}

Run tokens(const std::string& model, std::int64_t gather, std::int64_t ulysses, std::int64_t text,
           std::int64_t rows, std::int64_t columns) {
  return {.model = model,
          .parallel = {.ulysses = ulysses, .gather = gather},
          .text = text,
          .rows = rows,
          .columns = columns,
          .ranks = gather * ulysses};
}

TEST_CASE("tokens and heads over ranks") {
  for (const Run& run : {tokens("tiny-dev", 1, 1, 13, 5, 7), tokens("tiny-dev", 2, 1, 13, 5, 7),
                         tokens("tiny-dev", 1, 3, 13, 5, 7), tokens("tiny-dev", 2, 3, 13, 5, 7),
                         tokens("tiny-dev", 5, 1, 3, 3, 5), tokens("tiny-dev", 8, 1, 3, 1, 5),
                         tokens("tiny-schnell", 1, 4, 13, 5, 7), tokens("tiny-schnell", 2, 4, 7, 3, 7)})
    check_dtypes(run);
  if (std::getenv("XDIT_TEST_FULL") == nullptr) return;
  for (std::int64_t gather = 1; gather <= 8; ++gather)
    for (const std::int64_t ulysses : {1, 2, 3, 4})
      if (gather * ulysses <= 8)
        for (const auto& [text, rows, columns] :
             {std::array<std::int64_t, 3>{47, 9, 11}, {1, 1, 1}, {33, 8, 8}})
          check_dtypes(
              tokens(ulysses == 3 ? "tiny-dev" : "tiny-schnell", gather, ulysses, text, rows, columns));
}

TEST_CASE("quantised weights") {
  std::vector<Run> runs{tokens("tiny-dev", 2, 1, 13, 5, 7), tokens("tiny-dev", 1, 3, 13, 5, 7),
                        tokens("tiny-schnell", 2, 2, 7, 3, 7)};
  runs.push_back({.model = "tiny-schnell", .parallel = {.cfg = 2}, .cfg_scale = 2, .ranks = 2});
  for (Run& run : runs) {
    run.type = at::kBFloat16;
    run.quantize = config::Quantize::kFp8;
    check_equal(run);
  }
  Run plain = runs.front();
  plain.quantize = config::Quantize::kNone;
  const models::Model model = open_model(plain);
  CHECK_FALSE(at::equal(denoise_alone(runs.front(), model), denoise_alone(plain, model)));
}

TEST_CASE("weights spread over ranks") {
  for (const std::int64_t ranks : {2, 3, 5}) {
    Run run = tokens("tiny-dev", ranks, 1, 13, 5, 7);
    run.parallel.shard_weights = "true";
    check_dtypes(run);
  }
  Run pairs{.model = "tiny-schnell", .parallel = {.cfg = 2, .ulysses = 2}, .cfg_scale = 2, .ranks = 4};
  pairs.parallel.shard_weights = "true";
  check_dtypes(pairs);
}

TEST_CASE("prompt branches over ranks") {
  check_dtypes({.parallel = {.cfg = 2}, .cfg_scale = 2, .ranks = 2});
  check_dtypes({.parallel = {.cfg = 2, .gather = 2}, .cfg_scale = 2, .ranks = 4});
}

Run stages(std::int64_t degree, Parallel others, std::int64_t ranks, double cfg_scale = 1) {
  Run run{.parallel = others, .steps = 3, .cfg_scale = cfg_scale, .ranks = ranks};
  run.parallel.pipefusion = degree;
  run.parallel.pipefusion_warmup = run.steps;
  return run;
}

TEST_CASE("guidance rescaled by the whole picture's deviations") {
  const auto rescaled = [](Parallel parallel, std::int64_t ranks, double by = 0.7) {
    return Run{.parallel = parallel, .cfg_scale = 4, .rescale = by, .ranks = ranks};
  };
  check_dtypes(rescaled({.gather = 3}, 3));
  check_dtypes(rescaled({.cfg = 2, .gather = 2}, 4));
  const models::Model model = open_model({});
  CHECK_FALSE(at::equal(denoise_alone(rescaled({}, 1), model), denoise_alone(rescaled({}, 1, 0), model)));
}

TEST_CASE("samplers that add noise or evaluate twice a step") {
  for (const char* sampler : {"euler-ancestral", "dpm++-2m-sde", "heun", "pndm"})
    for (const auto& [parallel, ranks] :
         {std::pair{Parallel{.gather = 3}, 3}, {Parallel{.pipefusion = 2}, 2}}) {
      Run run{.parallel = parallel, .steps = 3, .sampler = sampler, .ranks = ranks};
      run.parallel.pipefusion_warmup = run.steps;
      check_equal(run);
    }
}

TEST_CASE("stages that only warm up") {
  check_dtypes(stages(2, {}, 2));
  check_dtypes(stages(3, {}, 3));
  check_dtypes(stages(2, {.gather = 2}, 4));
  check_dtypes(stages(2, {.ulysses = 3}, 6));
  check_dtypes(stages(2, {}, 2, 2));  // both branches on every stage
  check_dtypes(stages(2, {.cfg = 2}, 4, 2));
  Run all = stages(2, {.cfg = 2, .gather = 2}, 8, 2);
  all.parallel.shard_weights = "true";
  check_dtypes(all);
}

}  // namespace
}  // namespace xdit::tests
