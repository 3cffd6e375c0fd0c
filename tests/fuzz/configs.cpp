// The configs of a model: {"pipeline": "flux", "settings": model_index.json, "scheduler": ...,
// "COMPONENT": its config.json, ...}
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "models/flux/family.h"
#include "models/sdxl/family.h"
#include "schedulers/diffusion_config.h"
#include "schedulers/flow_match.h"
#include "tests/fuzz/fuzz.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Json document;
  fuzz::attempt([&] { document = parse_json(fuzz::text(data, size), "model.json", ExitCode::kModel); });
  if (!document.is_object()) return 0;
  models::Model model;
  model.files.path = "model";
  for (const char* name : {"transformer", "unet", "vae", "text_encoder", "text_encoder_2"}) {
    const auto config = document.find(name);
    if (config == document.end() || !config->is_object()) continue;  // open_model takes objects only
    weights::Component& component = model.files.components[name];
    component.name = name;
    component.class_name = config->value("_class_name", Json()).is_string() ? (*config)["_class_name"] : "";
    component.config = *config;
  }
  if (document.contains("settings") && document["settings"].is_object())
    model.files.settings = document["settings"];
  const Json pipeline = document.value("pipeline", Json());
  fuzz::attempt([&] {
    if (pipeline == "flux") models::describe_flux(model);
    if (pipeline == "sdxl") models::describe_sdxl(model);
    if (pipeline == "refiner") models::describe_refiner(model);
    if (pipeline == "sd") models::describe_sd(model);
  });
  const Json scheduler = document.value("scheduler", Json::object());
  if (!scheduler.is_object()) return 0;
  fuzz::attempt([&] { static_cast<void>(schedulers::read_flow_match_config(scheduler, "scheduler.json")); });
  for (const char* sampler : {"euler", "dpm++-2m", "unipc", "ddpm"})
    fuzz::attempt(
        [&] { static_cast<void>(schedulers::read_diffusion_config(scheduler, "scheduler.json", sampler)); });
  return 0;
}
