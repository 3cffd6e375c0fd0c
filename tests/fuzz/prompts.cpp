// A file of prompts: the first byte chooses the format.
#include <nlohmann/json.hpp>

#include "config/batch_file.h"
#include "tests/fuzz/fuzz.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text = fuzz::text(data + 1, size - 1);
  fuzz::attempt([&] {
    const auto format = static_cast<config::BatchFormat>(data[0] % 4);
    for (const config::BatchLine& line : config::read_batch(text, "prompts", format)) {
      if (line.fault) continue;
      const std::vector<config::Layer> layers{line.settings};
      fuzz::attempt([&] { static_cast<void>(config::resolve(layers, [] { return std::uint64_t{7}; })); });
    }
  });
  return 0;
}
