// The prompts in configs/, made with a small model in the place of theirs.
#include "output/png.h"
#include "tests/catch.h"
#include "tests/launch/small_run.h"

namespace xdit::cli {

TEST_CASE("configs/batch.jsonl and batch.yaml make their pictures") {
  const Folder folder;
  const std::string configs = XDIT_SOURCE "/configs/";
  const Result result = xdit_gen({"batch", configs + "batch.jsonl", "--profile", configs + "batch.yaml", "-m",
                                  data("flux/tiny-schnell"), "--device", "cpu", "--dtype", "fp32", "--size",
                                  "64x48", "--gpus", "2", "-o", folder.path / "{index}.png"},
                                 {.environment = {"OMP_NUM_THREADS=1"}});
  INFO(result.err);
  REQUIRE(result.code == 0);
  std::string paths;
  for (const char* name : {"0.png", "1.png", "2.png", "3.png"}) {
    paths += (folder.path / name).string() + "\n";
    const output::Pixels made = output::read_png_pixels(folder.path / name, ExitCode::kOutput);
    const bool wide = *name == '3';  // its line says so
    CHECK(made.width == (wide ? 1344 : 64));
    CHECK(made.height == (wide ? 768 : 48));
  }
  CHECK(result.out == paths);
}

}  // namespace xdit::cli
