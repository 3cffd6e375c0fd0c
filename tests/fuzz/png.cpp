// A PNG: its texts, the record in them, its pixels. Mutations keep the checksums right, or none would get
// far.
#include <libdeflate.h>

#include <algorithm>
#include <cstring>

#include "output/metadata.h"
#include "output/png.h"
#include "tests/fuzz/fuzz.h"

using namespace xdit;  // NOLINT: a program of two functions

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

constexpr std::size_t kSignature = 8;

std::uint32_t big_endian(const std::uint8_t* at) {
  return std::uint32_t{at[0]} << 24U | std::uint32_t{at[1]} << 16U | std::uint32_t{at[2]} << 8U | at[3];
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 == 0) return size;  // a wrong checksum is worth a try, too
  for (std::size_t at = kSignature; at + 12 <= size;) {
    const std::size_t length = big_endian(data + at);
    if (length > size - at - 12) break;
    const std::uint32_t crc = libdeflate_crc32(0, data + at + 4, length + 4);
    for (std::size_t i = 0; i < 4; ++i)
      data[at + 8 + length + i] = static_cast<std::uint8_t>(crc >> (24U - 8U * i));
    at += length + 12;
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryFile file;
  file.set(fuzz::text(data, size));
  fuzz::attempt([] {
    const output::PngText text = output::read_png_text(file.path(), ExitCode::kUsage);
    fuzz::attempt([&] { static_cast<void>(output::read_record(file.path())); });
    if (text.width * text.height <= 1 << 20U)
      static_cast<void>(output::read_png_pixels(file.path(), ExitCode::kUsage));
  });
  return 0;
}
