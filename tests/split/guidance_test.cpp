#include "tests/catch.h"
#include "tests/tensors.h"

#include "parallel/loop.h"

namespace xdit::tests {
namespace {

at::Tensor tokens_of(const at::Tensor& latents) {  // [C, h, w] -> [T, C]
  return latents.flatten(1).t();
}

TEST_CASE("guidance rescale is diffusers'") {
  const auto golden =
      test::read_tensors(std::filesystem::path(XDIT_TEST_DATA) / "samplers" / "guidance.safetensors");
  const at::Tensor positive = tokens_of(golden.at("positive"));
  const at::Tensor negative = tokens_of(golden.at("negative"));
  const at::Tensor expected = tokens_of(golden.at("guided"));
  const parallel::Guidance guidance{.scale = 7.5, .rescale = 0.7};
  CHECK((parallel::guided(positive, negative, guidance) - expected).abs().max().item<double>() < 1e-5);
  // A rank's rows alone, with the others' from elsewhere.
  at::Tensor all = positive;
  const parallel::Guidance spread{.scale = 7.5, .rescale = 0.7, .whole = [&](const at::Tensor&) {
                                    return std::exchange(all, negative + (positive - negative) * 7.5);
                                  }};
  const at::Tensor rows = parallel::guided(positive.narrow(0, 7, 30), negative.narrow(0, 7, 30), spread);
  CHECK((rows - expected.narrow(0, 7, 30)).abs().max().item<double>() < 1e-5);
}

}  // namespace
}  // namespace xdit::tests
