#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace xdit {

/// Element types of tensors in files and in runs. Names are those of safetensors.
enum class DType : std::uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool
};

[[nodiscard]] std::int64_t size_of(DType dtype);               ///< bytes an element
[[nodiscard]] std::string_view safetensors_name(DType dtype);  ///< "BF16", "F8_E4M3", ...
[[nodiscard]] std::optional<DType> from_safetensors_name(std::string_view name);
[[nodiscard]] std::string_view flag_name(DType dtype);  ///< "bf16", "fp16", "fp32", ...
[[nodiscard]] std::optional<DType> from_flag_name(
    std::string_view name);  ///< also "bfloat16", "float16", "float32"

}  // namespace xdit
