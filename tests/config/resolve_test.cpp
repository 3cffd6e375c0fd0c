#include <fmt/format.h>

#include <limits>

#include "config/values.h"
#include "tests/catch.h"
#include "tests/config/support.h"

namespace xdit::config {

TEST_CASE("values out of range or of the wrong type are refused with what was expected") {
  struct Case {
    const char* assignment;
    const char* message;
    const char* fix;
  };
  const std::vector<Case> cases{
      {"sampling.steps=0", "sampling.steps: expected an integer 1..1000, found '0'", ""},
      {"sampling.steps=1001", "found '1001'", ""},
      {"sampling.steps=010", "found '010'", ""},
      {"sampling.steps=1e1", "found '1e1'", ""},
      {"sampling.steps=+4", "found '+4'", ""},
      {"sampling.steps= 4", "found ' 4'", ""},
      {"sampling.steps=0x4", "found '0x4'", ""},
      {"sampling.steps=99999999999999999999", "found '9999", ""},
      {"sampling.steps=", "found ''", ""},
      {"sampling.guidance=nan", "sampling.guidance: expected a number 0..100, found 'nan'", ""},
      {"sampling.guidance=inf", "found 'inf'", ""},
      {"sampling.guidance=-0.5", "found '-0.5'", ""},
      {"sampling.guidance=3,5", "found '3,5'", ""},
      {"sampling.guidance=3.", "found '3.'", ""},
      {"sampling.shift=automatic", "expected auto or a number 0.01..100", ""},
      {"image.width=1004", "image.width: expected a multiple of 8 in 16..16384, found '1004'",
       "--set image.width=1008"},
      {"image.width=0", "found '0'", ""},
      {"image.height=16400", "found '16400'", ""},
      {"output.metadata=yes", "output.metadata: expected a boolean true|false, found 'yes'", ""},
      {"model.dtype=bf61", "model.dtype: expected one of bf16|fp16|fp32, found 'bf61'",
       "--set model.dtype=bf16"},
      {"model.dtype=fp8", "found 'fp8'", "--set model.dtype=fp16"},
      {"sampling.scheduler=dpm_fast", "sampling.scheduler: expected one of flow-match-euler|", ""},
      {"sampling.scheduler=", "found ''", ""},
      {"sampling.sigmas=karas", "sampling.sigmas: expected one of default|karras",
       "--set sampling.sigmas=karras"},
      {"sampling.crop=8", "sampling.crop: expected auto or two sides, as 1024x768, each 0..16384, found '8'",
       ""},
      {"sampling.crop=8x", "found '8x'", ""},
      {"sampling.crop=8x8x8", "found '8x8x8'", ""},
      {"sampling.target_size=-1x8", "found '-1x8'", ""},
      {"sampling.original_size=16385x8", "found '16385x8'", ""},
      {"sampling.seed=", "sampling.seed: expected integers or ranges", ""},
      {"sampling.seed=-2", "found '-2'", ""},
      {"sampling.seed=4-1", "found '4-1'", "--set sampling.seed=1-4"},
      {"sampling.seed=1,,2", "found ''", ""},
      {"sampling.seed=18446744073709551616", "found '18446744073709551616'", ""},
      {"sampling.seed=0-10000", "more than 10000 seeds", ""},
      {"sampling.seed=0-18446744073709551615", "more than 10000 seeds", ""},
      {"parallel.gpus=none", "parallel.gpus: expected GPUs: all, a count, or a list", ""},
      {"parallel.gpus=0", "found '0'", ""},
      {"parallel.gpus=,1", "found ',1'", ""},
      {"parallel.ulysses=0", "expected auto or an integer 1..1024", ""},
      {"runtime.timeout=60", "runtime.timeout: expected a duration (60s, 10m, 500ms)", ""},
      {"runtime.timeout=0s", "found '0s'", ""},
      {"runtime.timeout=25h", "found '25h'", ""},
      {"runtime.timeout=-1s", "found '-1s'", ""},
  };
  for (const Case& wrong : cases) {
    CAPTURE(wrong.assignment);
    const Error error = fault({wrong.assignment});
    CHECK(error.code() == ExitCode::kUsage);
    CHECK_THAT(error.message(), ContainsSubstring(wrong.message));
    CHECK(error.fix() == wrong.fix);
    CHECK(error.where().starts_with("--set "));
  }
}

TEST_CASE("values that read") {
  CHECK(with({"sampling.guidance=1e1"}).spec.sampling.guidance == 10);
  CHECK(with({"model.dtype=bfloat16"}).spec.model.dtype == DType::kBF16);
  CHECK(with({"sampling.rng_dtype=float32"}).spec.sampling.rng_dtype == DType::kF32);
  CHECK(with({"sampling.rng_dtype=auto"}).spec.sampling.rng_dtype == std::nullopt);
  CHECK(with({"sampling.shift=3"}).spec.sampling.shift == 3.0);
  CHECK(with({"runtime.timeout=1.5m"}).spec.runtime.timeout_s == 90);
  CHECK(with({"parallel.allow=rounding"}).spec.parallel.allow == Allow::kRounding);
  CHECK(with({"parallel.gpus=1,"}).spec.parallel.gpus == "1,");
  CHECK(with({"parallel.gpus=0,0"}).spec.parallel.gpus == "0,0");
  CHECK(with({"sampling.seed=18446744073709551615"}).spec.sampling.seeds ==
        std::vector<std::uint64_t>{std::numeric_limits<std::uint64_t>::max()});
  CHECK(with({"sampling.seed=3,7-9,1"}).spec.sampling.seeds == std::vector<std::uint64_t>{3, 7, 8, 9, 1});
  CHECK(with({"prompt=\xff\xc3\xa9"}).spec.prompts == std::vector<std::string>{"\xEF\xBF\xBD\xC3\xA9"});
}

TEST_CASE("seeds of -1 are drawn once each, also when none is given") {
  std::uint64_t next = 100;
  const auto draw = [&] { return next++; };
  Layer layer{parse_assignment("sampling.seed=-1,5,-1")};
  Resolved resolved = resolve(std::vector<Layer>{minimum(), layer}, draw);
  CHECK(resolved.spec.sampling.seeds == std::vector<std::uint64_t>{100, 5, 101});
  CHECK(resolved.drawn_seeds == std::vector<std::uint64_t>{100, 101});
  Layer bare = minimum();
  bare.pop_back();
  resolved = resolve(std::vector<Layer>{bare}, draw);
  CHECK(resolved.spec.sampling.seeds == std::vector<std::uint64_t>{102});
  CHECK(resolved.drawn_seeds == resolved.spec.sampling.seeds);
}

TEST_CASE("a missing prompt or model says what to type") {
  const std::vector<Layer> no_model{{parse_assignment("prompt=x")}};
  CHECK_THROWS_WITH(resolve(no_model, no_draw), ContainsSubstring("no model") && ContainsSubstring("-m "));
  const std::vector<Layer> no_prompt{{parse_assignment("model.path=x")}};
  CHECK_THROWS_WITH(resolve(no_prompt, no_draw), ContainsSubstring("no prompt") && ContainsSubstring("-p "));
}

TEST_CASE("what values say together") {
  CHECK(with({}).spec.negative_prompt == std::nullopt);
  CHECK(with({"negative_prompt="}).spec.negative_prompt == "");
  CHECK(with({"negative_prompt="}).warnings.empty());
  CHECK(with({"negative_prompt=blurry"}).warnings.size() == 1);
  CHECK(with({"negative_prompt=blurry", "sampling.cfg_scale=1"}).warnings.size() == 1);
  CHECK(with({"negative_prompt=blurry", "sampling.cfg_scale=2"}).warnings.empty());
  CHECK_THAT(fault({"image.count=2", "sampling.seed=18446744073709551615"}).message(),
             ContainsSubstring("does not fit 64 bits"));
  CHECK_THAT(fault({"image.count=10000", "sampling.seed=0-9999"}).message(), ContainsSubstring("pictures"));
}

TEST_CASE("pictures: prompt, then seed, then count") {
  RunSpec spec;
  spec.prompts = {"a", "b"};
  spec.sampling.seeds = {7, 20};
  spec.image.count = 2;
  const std::vector<Picture> all = pictures(spec);
  REQUIRE(all.size() == 8);
  const std::vector<std::uint64_t> seeds{7, 8, 20, 21, 7, 8, 20, 21};
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(all[i].index == static_cast<std::int64_t>(i));
    CHECK(all[i].prompt == (i < 4 ? "a" : "b"));
    CHECK(all[i].seed == seeds[i]);
  }
}

}  // namespace xdit::config
