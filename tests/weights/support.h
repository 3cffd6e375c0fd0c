#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/error.h"
#include "weights/key_map.h"
#include "weights/safetensors.h"

namespace xdit::weights::test {

namespace fs = std::filesystem;

/// A folder that goes when the test ends.
struct TemporaryFolder {
  fs::path path;
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
};

void write(const fs::path& path, const std::string& bytes);  ///< creates missing folders
[[nodiscard]] std::string read(const fs::path& path);
[[nodiscard]] inline fs::path data_folder() {
  return fs::path(XDIT_TEST_DATA) / "flux";
}

struct Tensor {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};

/// A safetensors file of any header, right or wrong; and of tensors, in their order.
[[nodiscard]] std::string safetensors(const std::string& header, const std::string& data);
[[nodiscard]] std::string safetensors(const std::vector<Tensor>& tensors);

/// The tensors of a table with their bytes.
[[nodiscard]] std::vector<Tensor> load(const TensorTable& table);

/// The bytes of a placed parameter whose pieces all have one dtype.
[[nodiscard]] std::string bytes_of(const Placed& placed, const TensorTable& table);

/// The text of the Error(kModel) that `call` throws, or "" if it throws none.
template <typename Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code() == ExitCode::kModel ? error.what() : "another code: " + std::string(error.what());
  }
  return {};
}

}  // namespace xdit::weights::test
