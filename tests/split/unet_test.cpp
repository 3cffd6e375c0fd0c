// A UNet's forward in row patches: N ranks equal one, bit for bit, whatever rows each of them holds, at sizes
// that no level divides and with more ranks than rows at the lowest one.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <cstdlib>

#include "parallel/split_spatial.h"
#include "tests/catch.h"
#include "tests/comm/ranks.h"
#include "tests/models/unets.h"

namespace xdit::parallel {
namespace {

struct Patches {
  std::string model;
  std::vector<std::int64_t> rows;  // of the latents, by rank
  std::int64_t columns;
};

void check_forward(const Patches& c, at::ScalarType type) {
  const Json inputs = read_json(test::kUnets / "errors.json", ExitCode::kModel).at("inputs");
  const std::vector<comm::Range> ranges = tests::in_a_row(c.rows);
  const std::int64_t all = ranges.back().end();
  const auto ranks = static_cast<int>(c.rows.size());
  const tests::Failures failures = tests::run_ranks(ranks, [&](tests::Rank& rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    test::TinyUnet tiny = test::load_unet(c.model, type);
    const models::Unet unet(tiny.config, tiny.weights, nn::LocalLinears());
    const test::UnetCase drawn = test::draw_case(tiny, inputs, 5, all, c.columns, type);
    const SplitSpatial patches(rank.group, ranges,
                               slab_bytes(tiny.config, all, c.columns, type == at::kFloat ? 4 : 2));
    const comm::Range mine = ranges[static_cast<std::size_t>(rank.group.rank())];
    if (mine.count == 0) return;
    const at::Tensor part =
        test::predict(unet, drawn, drawn.latents.narrow(1, mine.first, mine.count), patches);
    const at::Tensor whole = test::predict(unet, drawn, drawn.latents, nn::LocalSpatial());
    tests::expect(whole.isfinite().all().item<bool>(), "finite");
    tests::expect(whole.std().item<float>() > 0.01, "lively");
    tests::expect(at::equal(part, whole.narrow(2, mine.first, mine.count)), "equal to one rank");
  });
  CAPTURE(c.model, c.rows, c.columns, at::toString(type));
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

TEST_CASE("any row patches give one rank's prediction") {
  std::vector<Patches> cases{{"tiny-sdxl", {5}, 3},
                             {"tiny-sdxl", {7, 6}, 9},
                             {"tiny-sd15", {1, 6, 2}, 5},
                             {"tiny-sd21", {3, 0, 1, 0, 7}, 4},
                             {"tiny-sdxl", {2, 1, 1, 1, 2, 1, 1, 2}, 6},
                             {"tiny-sd15", {1, 1, 1, 1, 1, 1, 1}, 8},
                             {"tiny-sd21", {1, 0, 0, 0, 0, 0, 0, 0}, 3},
                             {"tiny-refiner", {4, 1, 6}, 7}};
  if (std::getenv("XDIT_TEST_FULL") != nullptr)
    for (const std::int64_t rows : {1, 2, 5, 7, 11, 16})
      for (std::int64_t ranks = 2; ranks <= 8; ++ranks) {
        const char* models[] = {"tiny-sdxl", "tiny-refiner", "tiny-sd15", "tiny-sd21"};
        Patches c{models[(rows + ranks) % 4], {}, rows + 2};
        for (std::int64_t i = 0; i < ranks; ++i) c.rows.push_back((rows - 1 - i + ranks) / ranks);
        cases.push_back(c);
      }
  for (const Patches& c : cases)
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) check_forward(c, type);
}

}  // namespace
}  // namespace xdit::parallel
