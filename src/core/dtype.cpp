#include "core/dtype.h"

#include <array>

#include "core/error.h"

namespace xdit {
namespace {

struct Row {
  DType dtype;
  std::int64_t bytes;
  std::string_view file;
  std::string_view flag;
  std::string_view long_flag;
};

constexpr std::array<Row, 12> kRows{{
    {DType::kF64, 8, "F64", "fp64", "float64"},
    {DType::kF32, 4, "F32", "fp32", "float32"},
    {DType::kF16, 2, "F16", "fp16", "float16"},
    {DType::kBF16, 2, "BF16", "bf16", "bfloat16"},
    {DType::kF8E4M3, 1, "F8_E4M3", "fp8", "float8_e4m3fn"},
    {DType::kF8E5M2, 1, "F8_E5M2", "fp8-e5m2", "float8_e5m2"},
    {DType::kI64, 8, "I64", "int64", "long"},
    {DType::kI32, 4, "I32", "int32", "int"},
    {DType::kI16, 2, "I16", "int16", "short"},
    {DType::kI8, 1, "I8", "int8", "char"},
    {DType::kU8, 1, "U8", "uint8", "byte"},
    {DType::kBool, 1, "BOOL", "bool", "bool"},
}};

const Row& row(DType dtype) {
  for (const Row& candidate : kRows)
    if (candidate.dtype == dtype) return candidate;
  broken_invariant("dtype is in the table", __FILE__, __LINE__);
}

}  // namespace

std::int64_t size_of(DType dtype) {
  return row(dtype).bytes;
}
std::string_view safetensors_name(DType dtype) {
  return row(dtype).file;
}
std::string_view flag_name(DType dtype) {
  return row(dtype).flag;
}

std::optional<DType> from_safetensors_name(std::string_view name) {
  for (const Row& candidate : kRows)
    if (candidate.file == name) return candidate.dtype;
  return std::nullopt;
}

std::optional<DType> from_flag_name(std::string_view name) {
  for (const Row& candidate : kRows)
    if (candidate.flag == name || candidate.long_flag == name) return candidate.dtype;
  return std::nullopt;
}

}  // namespace xdit
