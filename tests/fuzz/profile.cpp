// A YAML profile and what it resolves to; one of a sweep after "#s", a model's own settings after "#m".
#include "config/sweep_profile.h"
#include "tests/fuzz/fuzz.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryFile file;
  file.set(fuzz::text(data, size));
  const std::string_view text = fuzz::text(data, size);
  fuzz::attempt([&] {
    if (text.starts_with("#s")) {
      static_cast<void>(config::points_of(config::read_sweep_profile(file.path()).axes));
    } else if (text.starts_with("#m")) {
      static_cast<void>(config::read_model_settings(file.path()));
    } else {
      const std::vector<config::Layer> layers{config::read_profile(file.path())};
      static_cast<void>(config::to_yaml(config::resolve(layers, [] { return std::uint64_t{7}; }).spec));
    }
  });
  return 0;
}
