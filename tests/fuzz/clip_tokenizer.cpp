// CLIP's vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json, and a prompt, between 0xFF.
#include "tests/fuzz/fuzz.h"
#include "text/tokenizer/tokenizer.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryFolder folder(
      {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"});
  const auto files = fuzz::parts(fuzz::text(data, size), 5);
  for (std::size_t i = 0; i < 4; ++i) folder.file(i).set(i < 2 || !files[i].empty() ? files[i] : "{}");
  fuzz::attempt([&] {
    const auto tokenizer = text::open_clip_tokenizer(folder.path());
    static_cast<void>(tokenizer->encode(files[4], 8));
    static_cast<void>(tokenizer->ids("a fox's 2 na\xC3\xAFve \xF0\x9F\xA6\x8A \xFF owls"));
  });
  return 0;
}
