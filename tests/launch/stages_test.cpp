// A refiner's plan beside the model's.
#include "launch/stages.h"

#include "parallel/plan_machine.h"
#include "tests/catch.h"

namespace xdit::launch {

TEST_CASE("a refiner is spread as the model whose pictures it finishes, whatever is fastest for itself") {
  const models::Model model = models::open("sdxl", {}, {}, true);
  const models::Model refiner = models::open("sdxl-refiner", {}, {}, true);
  const Models both{model, &refiner};
  const parallel::Machine machine = parallel::read_machine("h100x4");
  config::RunSpec spec;
  spec.prompts = {"x"};
  spec.sampling.seeds = {0};
  spec.sampling.scheduler = "euler";
  spec.parallel.gpus = "all";
  for (const double scale : {1.0, 5.0})
    for (std::int64_t pictures = 1; pictures <= 6; ++pictures) {
      CAPTURE(scale, pictures);
      spec.sampling.cfg_scale = scale;
      spec.image.count = pictures;
      const parallel::Plan plan = parallel::make_plan(spec, model, machine);
      CHECK(plan_refiner(spec, both, plan, machine)->mesh == plan.mesh);
    }
}

}  // namespace xdit::launch
