// What files of ours hold when they come back: a picture's record (also replayed), a run's report, a
// manifest, a machine.
#include "output/manifest.h"
#include "output/report.h"
#include "parallel/plan_machine.h"
#include "tests/fuzz/fuzz.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryFile file;
  const std::string_view text = fuzz::text(data, size);
  fuzz::attempt([&] {
    const output::PictureRecord record = output::from_json(text, "record", ExitCode::kUsage);
    static_cast<void>(output::a1111_parameters(record));
    if (output::from_json(output::to_json(record), "again", ExitCode::kUsage) != record)
      throw std::runtime_error("a record that changes on its way");
    const std::vector<config::Layer> layers{output::replay_layer(record, "record")};
    static_cast<void>(config::resolve(layers, [] { return std::uint64_t{7}; }));
  });
  file.set(text);
  fuzz::attempt([] { static_cast<void>(output::read_measured(file.path(), ExitCode::kUsage)); });
  fuzz::attempt([] { static_cast<void>(parallel::read_machine(file.path())); });
  fuzz::attempt([] { const output::Manifest manifest(file.path(), {.seed = 1, .date = "d"}, true, false); });
  return 0;
}
