// A diffusers folder: model_index.json, a component's config.json and the index of its shards, between 0xFF.
#include "tests/fuzz/fuzz.h"
#include "weights/model_files.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryFolder folder({"model_index.json", "vae/config.json",
                                          "vae/model.safetensors.index.json", "vae/a.safetensors",
                                          "scheduler/scheduler_config.json"});
  const auto files = fuzz::parts(fuzz::text(data, size), 4);
  for (std::size_t i = 0; i < 3; ++i) folder.file(i).set(files[i]);
  std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  header.insert(0, std::string{static_cast<char>(header.size()), 0, 0, 0, 0, 0, 0, 0});
  folder.file(3).set(header + "x");
  folder.file(4).set(files[3]);
  fuzz::attempt([] { static_cast<void>(weights::open_model(folder.path())); });
  return 0;
}
