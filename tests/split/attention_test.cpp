// Attention over tokens that are spread over ranks is that of one rank, bit for bit, layer after layer; on
// GPUs with XDIT_TEST_CUDA set, rank r on GPU r modulo their number.
#include "nn/attention.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAFunctions.h>

#include <vector>

#include "comm/device_memory.h"
#include "comm/pinned_memory.h"
#include "parallel/split_attention.h"
#include "tests/catch.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"
#include "tests/nn/device.h"

namespace xdit::tests {
namespace {

using namespace std::chrono_literals;
using parallel::KeptKeys;
using parallel::TokenPart;
using parallel::TokenSplit;

constexpr std::int64_t kHeads = 4, kDim = 64, kLayers = 3;

at::Device device_of(int rank) {
  return test::device().is_cpu()
             ? at::Device("cpu")
             : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(rank % c10::cuda::device_count()));
}

Group world_of(const std::shared_ptr<const Job>& job, int rank, at::Device device) {
  if (device.is_cpu()) return Group::world(job, rank, 30s, tested_memory(job, rank, 30s));
  return Group::world(job, rank, 30s,
                      relayed() ? comm::pinned_memory(job, rank, device.index(), 30s)
                                : comm::device_memory(job, rank, device.index(), 30s));
}

at::Tensor random(at::IntArrayRef shape, const at::TensorOptions& options) {
  return at::randn(shape).to(options);
}

// Of all tokens `x`, those that `rank` holds.
at::Tensor held(const at::Tensor& x, const TokenSplit& split, std::int64_t rank, const TokenPart& part) {
  std::vector<at::Tensor> rows;
  for (const Range& range : split.positions(rank, part))
    rows.push_back(x.narrow(0, range.first, range.count));
  return at::cat(rows);
}

// Forwards of these parts; keys of tokens that are not in a part are kept from the forwards before.
void check(const TokenSplit& split, at::ScalarType type, const std::vector<TokenPart>& parts) {
  const auto ranks = static_cast<int>(split.ranks());
  const std::shared_ptr<const Job> job = Job::create(ranks);
  const Failures failures = run_processes(ranks, [&](int rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    const at::TensorOptions options = at::TensorOptions().dtype(type).device(device_of(rank));
    Group world = world_of(job, rank, options.device());
    const KeptKeys kept = parts.size() > 1 ? KeptKeys{{0, kLayers}, 1} : KeptKeys{};
    parallel::SplitAttention attention(world, split, kHeads, kDim, options, kept);
    nn::LocalAttention alone;
    at::manual_seed(1);  // the same on all
    const std::int64_t tokens = split.all_tokens();
    const at::Tensor norm = random({kDim}, options) + 1;
    const at::Tensor rotary = random({tokens, kDim / 2, 2}, options.dtype(at::kFloat));
    std::vector<at::Tensor> layers;  // what attention sees
    for (std::int64_t i = 0; i < kLayers; ++i)
      layers.push_back(at::empty({tokens, 3, kHeads, kDim}, options));
    for (const TokenPart& part : parts) {
      attention.select(part, 0);
      const std::int64_t text = part.text ? split.text.at(static_cast<std::size_t>(rank)).count : 0;
      std::vector<at::Tensor> outs;
      for (std::int64_t layer = 0; layer < kLayers; ++layer) {
        const at::Tensor& all = layers.at(static_cast<std::size_t>(layer));
        for (std::int64_t any = 0; any < split.ranks(); ++any)
          for (const Range& range : split.positions(any, part))
            all.narrow(0, range.first, range.count).copy_(random({range.count, 3, kHeads, kDim}, options));
        const at::Tensor mine = held(all, split, rank, part);
        const std::int64_t count = mine.size(0);
        outs.push_back(at::empty({count, kHeads * kDim}, options));
        attention.begin(layer, mine, held(rotary, split, rank, part));
        if (layer == 0) {
          attention.add(0, {count, norm, norm});
        } else {
          attention.add(text, {count - text, norm, norm});
          attention.add(0, {text, norm, norm});
        }
        attention.finish(outs.back());
      }
      for (std::int64_t layer = 0; layer < kLayers; ++layer) {
        const at::Tensor& all = layers.at(static_cast<std::size_t>(layer));
        const at::Tensor whole = at::empty({tokens, kHeads * kDim}, options);
        alone.begin(layer, all, rotary);
        alone.add(0, {tokens, norm, norm});
        alone.finish(whole);
        expect(whole.isfinite().all().item<bool>(), "finite");
        expect(at::equal(outs.at(static_cast<std::size_t>(layer)), held(whole, split, rank, part)), "equal");
      }
    }
    static_cast<void>(world.share({}));
  });
  CAPTURE(at::toString(type), split.ulysses, ranks, parts.size());
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

TEST_CASE("attention over ranks is that of one") {
  const std::vector<Range> text2{{0, 3}, {3, 2}}, text3{{0, 2}, {2, 0}, {2, 3}};
  const std::vector<std::vector<Range>> one2{{{0, 7}}, {{7, 6}}}, bands2{{{0, 3}, {6, 4}}, {{3, 3}, {10, 3}}};
  const std::vector<std::vector<Range>> one3{{{0, 5}}, {{5, 5}}, {{10, 1}}};
  const std::vector<TokenPart> whole{{true, {0, 1}}};
  const std::vector<TokenPart> bands{{true, {0, 2}}, {true, {0, 1}}, {false, {1, 1}}, {true, {0, 1}}};
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    check({1, {{0, 5}}, {{{0, 13}}}}, type, whole);
    check({1, text2, one2}, type, whole);
    check({2, text2, one2}, type, whole);
    check({1, text3, one3}, type, whole);
    check({1, {{0, 5}}, {{{0, 6}, {6, 7}}}}, type, bands);
    check({1, text2, bands2}, type, bands);
    check({2, text2, bands2}, type, bands);
  }
}

}  // namespace
}  // namespace xdit::tests
