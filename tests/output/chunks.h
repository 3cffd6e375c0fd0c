#pragma once
#include <libdeflate.h>

#include <string>

/// Parts of PNG files, to make odd ones.
namespace xdit::tests {

inline std::string big_endian(std::size_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

inline std::string chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  return big_endian(data.size()) + body + big_endian(libdeflate_crc32(0, body.data(), body.size()));
}

inline std::string zlib(const std::string& text) {
  libdeflate_compressor* compressor = libdeflate_alloc_compressor(9);
  std::string packed(libdeflate_zlib_compress_bound(compressor, text.size()), '\0');
  packed.resize(libdeflate_zlib_compress(compressor, text.data(), text.size(), packed.data(), packed.size()));
  libdeflate_free_compressor(compressor);
  return packed;
}

}  // namespace xdit::tests
