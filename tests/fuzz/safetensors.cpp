// The head of a safetensors file, behind the count of zeros that follow it, in 4 bytes.
#include "weights/safetensors.h"
#include "tests/fuzz/fuzz.h"
#include "weights/key_map.h"

using namespace xdit;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryFile file;
  if (size < 4) return 0;
  const std::size_t zeros = data[0] | data[1] << 8U | data[2] << 16U | (data[3] % 64U) << 24U;
  file.set(fuzz::text(data + 4, size - 4), zeros);
  fuzz::attempt([] {
    const weights::TensorTable table = weights::read_safetensors(file.path());
    static_cast<void>(
        weights::place(std::vector{weights::parameter("a", {2, 2})}, table, weights::identity_map(table)));
  });
  return 0;
}
