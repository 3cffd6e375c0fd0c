// The decoder in row slabs: N ranks equal one, bit for bit, whatever rows each of them holds.
#include "models/vae/decoder.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "parallel/split_spatial.h"
#include "tests/catch.h"
#include "tests/comm/ranks.h"
#include "tests/models/tiny.h"

namespace xdit::parallel {
namespace {

struct Decoding {
  std::string model;
  std::vector<std::int64_t> rows;  // of the latents, by rank
  std::int64_t columns;
};

void check_decoding(const Decoding& c, at::ScalarType type) {
  const models::Model model =
      models::open((std::filesystem::path(XDIT_TEST_DATA) / c.model).string(), {}, {}, false);
  const models::VaeConfig config = models::read_vae_config(model.files.components.at("vae").config, "vae");
  const std::vector<comm::Range> ranges = tests::in_a_row(c.rows);
  const std::int64_t all = ranges.back().end();
  const auto ranks = static_cast<int>(c.rows.size());
  const tests::Failures failures = tests::run_ranks(ranks, [&](tests::Rank& rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    const nn::ResidentWeights weights = test::load(model, "vae", type);
    const models::VaeDecoder decoder(config, weights);
    const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(9);
    const auto element = static_cast<std::int64_t>(weights.get("decoder.conv_in.weight").element_size());
    const SplitSpatial slabs(rank.group, ranges, slab_bytes(config, all, c.columns, element));
    const comm::Range mine = ranges[static_cast<std::size_t>(rank.group.rank())];
    for (int picture = 0; picture < 2; ++picture) {  // the buffers serve again
      const at::Tensor latents =
          at::randn({1, config.latent_channels, all, c.columns}, generator, at::TensorOptions()).to(type);
      if (mine.count == 0) continue;
      const at::Tensor rows =
          decoder.decode_scaled(latents.narrow(2, mine.first, mine.count), slabs).squeeze(0);
      const at::Tensor collected = slabs.collect(rows);
      const at::Tensor whole = decoder.decode_scaled(latents, nn::LocalSpatial()).squeeze(0);
      tests::expect(whole.isfinite().all().item<bool>(), "finite");
      tests::expect(whole.std().item<float>() > 0.01, "lively");
      const std::int64_t scale = config.downscale();
      tests::expect(at::equal(rows, whole.narrow(1, scale * mine.first, scale * mine.count)),
                    "equal to one rank");
      tests::expect(collected.defined() == (rank.group.rank() == 0), "the picture is on rank 0");
      if (collected.defined()) tests::expect(at::equal(collected, whole), "the whole picture");
    }
  });
  CAPTURE(c.model, c.rows, c.columns, at::toString(type));
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

TEST_CASE("any slabs give one rank's picture") {
  std::vector<Decoding> cases{{"flux/tiny-dev", {5}, 3},
                              {"flux/tiny-dev", {2, 3}, 7},
                              {"flux/tiny-schnell", {1, 6, 2}, 5},
                              {"flux/tiny-dev", {3, 0, 1, 0, 5}, 3},
                              {"flux/tiny-schnell", {1, 1, 1, 1, 1, 1, 1}, 2},
                              {"flux/tiny-dev", {1, 0, 0, 0, 0, 0, 0, 0}, 9},
                              {"sd/tiny-sdxl", {5}, 3},
                              {"sd/tiny-sdxl", {7, 4}, 9},
                              {"sd/tiny-sdxl", {1, 6, 2}, 5},
                              {"sd/tiny-sdxl", {3, 0, 1, 3}, 7},
                              {"sd/tiny-sdxl", {2, 1, 1, 2, 1}, 1},
                              {"sd/tiny-sdxl", {1, 1, 1, 1, 1, 1}, 3},
                              {"sd/tiny-sdxl", {1, 0, 2, 1, 1, 0, 1}, 5},
                              {"sd/tiny-sdxl", {2, 1, 1, 1, 1, 1, 1, 1}, 3},
                              {"sd/tiny-sd21", {2, 5, 1}, 4}};
  if (std::getenv("XDIT_TEST_FULL") != nullptr)
    for (const std::int64_t rows : {1, 5, 7, 9, 16})
      for (std::int64_t ranks = 2; ranks <= 8; ++ranks) {
        const char* models[] = {"flux/tiny-dev", "flux/tiny-schnell", "sd/tiny-sdxl"};
        Decoding c{models[(rows + ranks) % 3], {}, rows + 2};
        for (std::int64_t i = 0; i < ranks; ++i) c.rows.push_back((rows - 1 - i + ranks) / ranks);
        cases.push_back(c);
      }
  for (const Decoding& c : cases)
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) check_decoding(c, type);
}

}  // namespace
}  // namespace xdit::parallel
