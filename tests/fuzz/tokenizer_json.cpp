// tokenizer.json, tokenizer_config.json and a prompt, between 0xFF, read as CLIP's and as T5's.
#include "tests/fuzz/fuzz.h"
#include "text/tokenizer/tokenizer.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryFolder folder({"tokenizer.json", "tokenizer_config.json"});
  const auto files = fuzz::parts(fuzz::text(data, size), 3);
  folder.file(0).set(files[0]);
  folder.file(1).set(files[1].empty() ? "{}" : files[1]);
  for (const auto open : {text::open_clip_tokenizer, text::open_t5_tokenizer})
    fuzz::attempt([&] {
      const auto tokenizer = open(folder.path());
      static_cast<void>(tokenizer->encode(files[2], 8));
      static_cast<void>(tokenizer->ids("a fox's 2 na\xC3\xAFve \xF0\x9F\xA6\x8A \xFF owls"));
    });
  return 0;
}
