// A UNet's forwards in row patches that use each other's rows of the step before.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <array>

#include "parallel/displaced_rows.h"
#include "parallel/split_spatial.h"
#include "tests/catch.h"
#include "tests/comm/ranks.h"
#include "tests/models/unets.h"

namespace xdit::parallel {
namespace {

constexpr std::int64_t kSteps = 4;
constexpr std::int64_t kBranches = 2;

double relative(const at::Tensor& x, const at::Tensor& reference) {
  return ((x - reference).norm() / reference.norm()).item<double>();
}

// Latents that change from step to step by `drift`, and two prompts.
class Walk {
 public:
  Walk(const std::string& model, std::int64_t rows, std::int64_t columns)
      : tiny_(test::load_unet(model, at::kFloat)), unet_(tiny_.config, tiny_.weights, nn::LocalLinears()) {
    const Json inputs = read_json(test::kUnets / "errors.json", ExitCode::kModel).at("inputs");
    for (std::uint64_t seed = 0; seed < kBranches; ++seed) {
      test::UnetCase drawn = test::draw_case(tiny_, inputs, 5 + seed, rows, columns, at::kFloat);
      latents_.push_back(drawn.latents);
      drawn.timesteps.clear();
      for (std::int64_t i = 0; i < kSteps; ++i)
        drawn.timesteps.push_back(900.0F - 0.1F * static_cast<float>(i));
      branches_.push_back(unet_.prepare(drawn.inputs()));
    }
  }
  [[nodiscard]] const models::UnetConfig& config() const { return tiny_.config; }
  /// Prediction at the rows `own`.
  [[nodiscard]] at::Tensor predict(const nn::Spatial& spatial, comm::Range own, std::int64_t step,
                                   std::int64_t branch, double drift = 0.03) const {
    const at::Tensor now = latents_[0] + latents_[1] * (drift * static_cast<double>(step));
    const models::UnetConditioning& conditioning = branches_.at(static_cast<std::size_t>(branch));
    conditioning.select(step);
    return unet_.forward(now.narrow(1, own.first, own.count), conditioning, spatial)[0];
  }

 private:
  test::TinyUnet tiny_;
  models::Unet unet_;
  std::vector<at::Tensor> latents_;
  std::vector<models::UnetConditioning> branches_;
};

// [steps * branches, C, h, W]; `begin` before each forward.
template <class F>
at::Tensor predictions(const Walk& walk, const nn::Spatial& spatial, comm::Range own, F&& begin,
                       const std::vector<std::int64_t>& branches = {0, 1}) {
  std::vector<at::Tensor> all;
  for (std::int64_t step = 0; step < kSteps; ++step)
    for (const std::int64_t branch : branches) {
      begin(branch, step);
      all.push_back(walk.predict(spatial, own, step, branch));
    }
  return at::stack(all);
}

void check_walk(const std::string& model, const std::vector<std::int64_t>& lengths, std::int64_t columns) {
  const std::vector<comm::Range> ranges = tests::in_a_row(lengths);
  const std::int64_t rows = ranges.back().end();
  const bool alone = *std::max_element(lengths.begin(), lengths.end()) == rows;
  const auto failures = tests::run_ranks(static_cast<int>(lengths.size()), [&](tests::Rank& rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    const Walk walk(model, rows, columns);
    const comm::Range own = ranges[static_cast<std::size_t>(rank.group.rank())];
    const auto displaced = std::make_shared<DisplacedRows>(
        rank.group, own.count > 0, row_exchanges(walk.config(), rows, columns, sizeof(float)), kBranches);
    const SplitSpatial patches(rank.group, ranges, displaced);
    if (own.count == 0) return;
    const at::Tensor whole =
        predictions(walk, nn::LocalSpatial(), {0, rows}, [](std::int64_t, std::int64_t) {});
    const at::Tensor exact = whole.narrow(2, own.first, own.count);
    const auto picture = [&](std::int64_t warmup, const std::vector<std::int64_t>& branches = {0, 1}) {
      const auto begin = [&](std::int64_t branch, std::int64_t step) {
        displaced->begin(branch, step < warmup);
      };
      return predictions(walk, patches, own, begin, branches);
    };
    const at::Tensor once = picture(1), later = picture(3);
    tests::expect(at::equal(picture(kSteps), exact), "all steps warm up: equal to one rank");
    tests::expect(at::equal(picture(1), once), "the same picture again");
    const at::Tensor second = once.view({kSteps, kBranches, once.size(1), once.size(2), once.size(3)});
    tests::expect(at::equal(picture(1, {1}), second.select(1, 1)), "each prompt has its own rows");
    if (alone) {
      tests::expect(at::equal(once, exact), "all rows on one rank: exact");
      return;
    }
    const double error = relative(once, exact), less = relative(later, exact);
    tests::expect(error > less && less > 0 && error < 0.2,
                  "errors " + std::to_string(error) + " and " + std::to_string(less));
    const at::Tensor warm = once.narrow(0, 0, kBranches);
    tests::expect(at::equal(warm, exact.narrow(0, 0, kBranches)), "the first step is exact");
  });
  CAPTURE(model, lengths, columns);
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

TEST_CASE("displaced rows are exact while they warm up, then close, and belong to one picture and prompt") {
  check_walk("tiny-sdxl", {7, 6}, 9);
  check_walk("tiny-sd15", {4, 6, 2}, 5);
  check_walk("tiny-sd21", {3, 0, 4, 0, 7}, 4);
  check_walk("tiny-sdxl", {2, 1, 1, 1, 2, 1, 1, 2}, 6);  // some have no row of the lowest level
  check_walk("tiny-sd15", {5}, 3);
  check_walk("tiny-sdxl", {0, 5, 0}, 3);
}

// Nothing that a rank has of the step before is out of place: where nothing moves, only rounding differs.
TEST_CASE("displaced rows of a picture that stands still are its own") {
  const std::vector<comm::Range> ranges = tests::in_a_row({3, 5, 1, 2});
  const auto failures = tests::run_ranks(4, [&](tests::Rank& rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    const Walk walk("tiny-sdxl", 11, 6);
    const comm::Range own = ranges[static_cast<std::size_t>(rank.group.rank())];
    const auto displaced = std::make_shared<DisplacedRows>(
        rank.group, true, row_exchanges(walk.config(), 11, 6, sizeof(float)), 1);
    const SplitSpatial patches(rank.group, ranges, displaced);
    displaced->begin(0, true);
    const at::Tensor first = walk.predict(patches, own, 0, 0, 0);
    for (int i = 0; i < 3; ++i) {
      displaced->begin(0, false);
      const double error = relative(walk.predict(patches, own, 0, 0, 0), first);
      tests::expect(error < 1e-5, "error " + std::to_string(error));
    }
  });
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

// [H, G, N] of random values, whose rows differ.
at::Tensor rows_of_values(std::uint64_t seed) {
  const at::Generator draw = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn({9, 4, 12}, draw, at::kDouble) + at::randn({9, 4, 1}, draw, at::kDouble);
}
at::Tensor moments_of(const at::Tensor& values) {
  const at::Tensor mean = values.mean(2, /*keepdim=*/true);
  return at::stack({mean.squeeze(2), (values - mean).square().sum(2)}, 2).to(at::kFloat).unsqueeze(0);
}

TEST_CASE("statistics change as a rank's own do, and its own variance stands for a negative one") {
  const at::Tensor stale = rows_of_values(1);
  const auto power = [](const at::Tensor& values, int exponent) {
    return values.pow(exponent).mean(at::IntArrayRef{0, 2});
  };
  for (const double scale : {1.0, 0.01}) {  // own rows that shrink take more variance away than there is
    const at::Tensor own = stale.narrow(0, 2, 4) * 8, fresh = own * scale + rows_of_values(2).narrow(0, 2, 4);
    const at::Tensor then = at::cat({stale.narrow(0, 0, 2), own, stale.narrow(0, 6, 3)});
    const at::Tensor whole = corrected_moments(moments_of(then), {2, 4}, moments_of(fresh), 12)[0];
    const auto corrected = [&](int exponent) {
      return power(then, exponent) + power(fresh, exponent) - power(own, exponent);
    };
    const at::Tensor variance = corrected(2) - corrected(1).square();
    CHECK((variance < 0).any().item<bool>() == (scale < 1));
    const at::Tensor own_variance = power(fresh, 2) - power(fresh, 1).square();
    const at::Tensor expected =
        at::stack({corrected(1), at::where(variance < 0, own_variance, variance)}, 1).to(at::kFloat);
    CHECK(at::allclose(whole, expected, /*rtol=*/1e-4, /*atol=*/1e-4));
  }
}

}  // namespace
}  // namespace xdit::parallel
