// What ranks store together of a matrix that is used in pieces is what one rank holds of it.
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include "parallel/plan_weights.h"
#include "tests/catch.h"
#include "tests/comm/ranks.h"
#include "tests/models/tiny.h"
#include "tests/split/denoise.h"

namespace xdit::tests {
namespace {

const std::string kMatrix = "modulation.weight";

void check_pieces(Run run, bool dummy) {
  run.parallel.shard_weights = "true";
  const models::Model model = models::open((test::kFlux / run.model).string(), {}, {}, dummy);
  const parallel::Plan plan = plan_of(run, model);
  const models::Network& network = parallel::denoiser_of(model);
  const std::shared_ptr<const comm::Job> job = comm::Job::create(static_cast<int>(run.ranks));
  const Failures failures = run_processes(static_cast<int>(run.ranks), [&](int rank) {
    at::set_num_threads(1);
    const c10::InferenceMode no_gradients;
    LoadedRank loaded(run, model, plan, rank, job);
    nn::Weights& weights = *loaded.transformer.weights;
    expect(!weights.stays(kMatrix), "not here for good");
    expect(weights.stays("modulation.bias"), "here for good");

    std::uint64_t read = 0;
    const parallel::Tensors whole = parallel::load_whole(model, network, run.type, at::kCPU, 1, read);
    const std::int64_t piece =
        std::find_if(network.parameters.begin(), network.parameters.end(), [](const auto& parameter) {
          return parameter.name == kMatrix;
        })->piece_rows;
    const std::int64_t rows = loaded.mine.pictures.count > 0 ? whole.at(kMatrix).size(0) : 0;
    for (int turn = 0; turn <= rank % 2; ++turn)  // some ranks have a prompt more
      for (std::int64_t first = 0; first < rows; first += piece) {
        const std::int64_t count = std::min(piece, rows - first);
        expect(at::equal(weights.rows(kMatrix, first, count), whole.at(kMatrix).narrow(0, first, count)),
               "the same rows from " + std::to_string(first));
      }
    weights.enter(0);
    const std::string block = "transformer_blocks.0.attn.qkv.weight";
    expect(at::equal(weights.get(block), whole.at(block)), "the same block");
    loaded.spread.finish();
  });
  CAPTURE(run.ranks, dummy);
  for (const std::string& failure : failures) FAIL_CHECK(failure);
}

}  // namespace

TEST_CASE("pieces of a matrix that ranks share are those of the whole, read or drawn") {
  for (const bool dummy : {false, true}) {
    for (const std::int64_t ranks : {2, 3, 5})
      check_pieces({.parallel = {.gather = ranks}, .ranks = ranks}, dummy);
    check_pieces({.parallel = {.data = 2}, .type = at::kBFloat16, .ranks = 2}, dummy);  // one is idle
  }
}

}  // namespace xdit::tests
