// A sentencepiece model, its normaliser included.
#include "tests/fuzz/fuzz.h"
#include "text/tokenizer/tokenizer.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryFolder folder({"spiece.model", "tokenizer_config.json"});
  folder.file(1).set(R"({"extra_ids": 1})");  // 100 would take most of the time
  folder.file(0).set(fuzz::text(data, size));
  fuzz::attempt([] {
    const auto tokenizer = text::open_t5_tokenizer(folder.path());
    static_cast<void>(tokenizer->encode("a fox's 2 na\xC3\xAFve \xEF\xAC\x81 \xF0\x9F\xA6\x8A \xFF owls", 8));
  });
  return 0;
}
