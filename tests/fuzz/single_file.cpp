// What the names and shapes of a single file make of it: a tensor a line, "NAME 4 3 3 3".
#include <charconv>

#include "models/flux/bfl_keys.h"
#include "models/flux/tables.h"
#include "models/sdxl/family.h"
#include "models/sdxl/ldm.h"
#include "tests/fuzz/fuzz.h"

using namespace xdit;  // NOLINT: a program of two functions

namespace {

// As read_safetensors makes one: sizes are not negative, and their product is a number of bytes.
weights::TensorTable table_of(std::string_view text) {
  weights::TensorTable table;
  table.files = {"file.safetensors"};
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t end = std::min(line.find(' '), line.size());
    weights::FileTensor tensor;
    tensor.bytes = size_of(tensor.dtype);
    const std::string name(line.substr(0, end));
    for (line.remove_prefix(end); line.size() > 1 && tensor.shape.size() < 32;) {
      std::uint32_t size = 0;
      const auto [rest, error] = std::from_chars(line.data() + 1, line.data() + line.size(), size);
      if (error != std::errc{} || __builtin_mul_overflow(tensor.bytes, size, &tensor.bytes)) break;
      tensor.shape.push_back(size);
      line.remove_prefix(static_cast<std::size_t>(rest - line.data()));
    }
    table.tensors.emplace(name, tensor);
  }
  return table;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  weights::TensorTable table = table_of(fuzz::text(data, size));
  fuzz::attempt([&] {
    if (!models::is_bfl(table)) return;
    const weights::Component made = models::bfl_transformer(table, nullptr);
    const models::FluxConfig config = models::read_flux_config(made.config, "config.json");
    static_cast<void>(weights::place(models::flux_parameters(config), made.table, made.keys));
  });
  fuzz::attempt([&] {
    if (!models::is_ldm(table)) return;
    models::Model model;
    model.files.path = "file.safetensors";
    model.files.single_file = std::move(table);
    models::open_ldm(model.files);
    for (const auto describe : {models::describe_sdxl, models::describe_refiner, models::describe_sd})
      fuzz::attempt([&] {
        models::Model copy = model;
        describe(copy);
        for (const models::Network& network : copy.networks) {
          const weights::Component& component = copy.files.components.at(network.component);
          static_cast<void>(
              weights::place(network.parameters, component.table, component.keys, network.ignored));
        }
      });
  });
  return 0;
}
