// Replayed forwards are the denoiser's own, step by step and branch by branch. Needs a GPU: XDIT_TEST_CUDA=1.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cstdlib>
#include <utility>

#include "parallel/replayed_denoiser.h"
#include "tests/catch.h"

namespace xdit::parallel {
namespace {

struct Shift final : models::Branch {
  explicit Shift(at::Tensor of_steps) : steps(std::move(of_steps)), now(at::zeros_like(steps[0])) {}
  [[nodiscard]] std::vector<at::Tensor> tensors() const override { return {steps, now}; }
  [[nodiscard]] std::unique_ptr<Branch> clone() const override {
    return std::make_unique<Shift>(steps.clone());
  }
  at::Tensor steps, now;  // [steps, C], [C]
};

// tanh(x W) + the step's shift, and what it sends.
class Small final : public models::Denoiser {
 public:
  explicit Small(comm::Use& use) : use_(use) {}
  std::unique_ptr<models::Branch> prepare(const models::PromptEmbedding& prompt,
                                          const models::LoopShape& /*shape*/) override {
    return std::make_unique<Shift>(prompt.tokens);
  }
  void select(const models::Branch& branch, std::int64_t step) override {
    const auto& shift = static_cast<const Shift&>(branch);
    shift.now.copy_(shift.steps[step]);
  }
  at::Tensor predict(const models::Branch& branch, const at::Tensor& input,
                     const models::ForwardPart& /*part*/) override {
    ++runs;
    use_.send(100);
    return at::tanh(at::matmul(input, weight_)) + static_cast<const Shift&>(branch).now;
  }
  at::Tensor pack(const at::Tensor& latents) const override { return latents; }
  at::Tensor unpack(const at::Tensor& packed, std::int64_t /*rows*/,
                    std::int64_t /*columns*/) const override {
    return packed;
  }
  int runs = 0;

 private:
  comm::Use& use_;
  at::Tensor weight_ = at::randn({16, 16}, at::kCUDA);
};

// Of so many branches of a step.
void check_replays(int together) {
  CAPTURE(together);
  at::manual_seed(5);
  constexpr std::int64_t kSteps = 6;
  comm::Use use;
  Small small(use);
  Replays replays;
  ReplayedDenoiser replayed(small, &use, replays);
  std::vector<models::PromptEmbedding> prompts;
  const auto draw = [&] {
    prompts.clear();
    for (int i = 0; i < together; ++i) prompts.push_back({at::randn({kSteps, 16}, at::kCUDA), {}});
  };
  draw();
  const at::Tensor latents = at::randn({7, 16}, at::kCUDA);
  const auto run = [&](models::Denoiser& denoiser) {
    std::vector<std::unique_ptr<models::Branch>> branches;
    for (const models::PromptEmbedding& prompt : prompts) branches.push_back(denoiser.prepare(prompt, {}));
    std::vector<at::Tensor> outputs;  // kept: a later replay must not overwrite them
    at::Tensor x = latents;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      for (const auto& branch : branches) {
        denoiser.select(*branch, step);
        outputs.push_back(denoiser.predict(*branch, x, {}));
      }
      x = x + outputs.back();
    }
    return at::stack(outputs);
  };
  const at::Tensor outputs = run(replayed);
  CHECK(small.runs == 1 + together);  // the first as it is, and each branch captured
  CHECK(static_cast<std::int64_t>(use.bytes_sent()) == together * kSteps * 100);
  CHECK(at::equal(outputs, run(small)));
  draw();
  small.runs = 0;
  const at::Tensor others = run(replayed);
  CHECK(small.runs == 0);  // branches that are gone leave their graphs to others
  CHECK(at::equal(others, run(small)));
  CHECK_FALSE(at::equal(others, outputs));
  CHECK(outputs.abs().min().item<float>() > 0);
}

TEST_CASE("replayed forwards are the denoiser's own") {
  if (std::getenv("XDIT_TEST_CUDA") == nullptr) return;
  const c10::InferenceMode no_gradients;
  for (const int together : {1, 2}) check_replays(together);
}

}  // namespace
}  // namespace xdit::parallel
