#include <sha2.h>

#include <array>
#include <span>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "weights/model_files.h"

namespace xdit::weights {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kSampleBytes = 512;  // of a tensor

class Sha256 {
 public:
  Sha256() { SHA256Init(&context_); }
  void add(std::span<const std::byte> bytes) {
    SHA256Update(&context_, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  /// With its length before it, so that two texts never read as another two.
  void add_text(std::string_view text) {
    add_number(text.size());
    add(std::as_bytes(std::span(text)));
  }
  void add_number(std::uint64_t number) {
    std::array<std::byte, sizeof number> bytes{};
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes.at(i) = static_cast<std::byte>(number >> (8U * i));
    add(bytes);
  }
  [[nodiscard]] std::string hex() {
    std::array<char, SHA256_DIGEST_STRING_LENGTH> text{};
    SHA256End(&context_, text.data());
    return text.data();
  }

 private:
  SHA2_CTX context_{};
};

/// The config without what says nothing about the model: "_name_or_path", "_diffusers_version", ...
std::string config_text(nlohmann::json config) {
  if (config.is_object())
    for (auto at = config.begin(); at != config.end();)
      at = at.key().starts_with("_") && at.key() != "_class_name" ? config.erase(at) : std::next(at);
  return config.dump();
}

/// Names, dtypes, shapes and the middle of each tensor.
void add_table(Sha256& sha, const TensorTable& table) {
  std::vector<File> files;
  for (const fs::path& path : table.files) files.push_back(File::open_read(path, ExitCode::kModel));
  sha.add_number(table.tensors.size());
  for (const auto& [name, tensor] : table.tensors) {
    sha.add_text(name);
    sha.add_text(safetensors_name(tensor.dtype));
    sha.add_number(tensor.shape.size());
    for (const std::int64_t size : tensor.shape) sha.add_number(static_cast<std::uint64_t>(size));
    std::array<std::byte, kSampleBytes> sample{};
    const std::size_t bytes = std::min(tensor.bytes, kSampleBytes);
    const std::uint64_t offset = tensor.offset + (tensor.bytes - bytes) / 2;
    const std::span part = std::span(sample).first(bytes);
    const auto file = static_cast<std::size_t>(tensor.file);
    if (files.at(file).read_at(part, offset) < bytes)
      throw Error(ExitCode::kModel, "the file has become shorter", table.files.at(file).string(),
                  "download it again");
    sha.add(part);
  }
}

}  // namespace

std::string model_hash(const ModelFiles& files) {
  Sha256 sha;
  sha.add_text(files.class_name);
  sha.add_text(config_text(files.scheduler_config));
  for (const auto& [name, component] : files.components) {
    sha.add_text(name);
    sha.add_text(component.class_name);
    sha.add_text(config_text(component.config));
    add_table(sha, component.table);
  }
  return sha.hex();
}

std::string file_sha256(const fs::path& path) {
  const File file = File::open_read(path, ExitCode::kModel);
  std::vector<std::byte> block(std::size_t{1} << 20U);
  Sha256 sha;
  std::uint64_t offset = 0;
  for (std::size_t got = block.size(); got == block.size(); offset += got) {
    got = file.read_at(block, offset);
    sha.add(std::span(block).first(got));
  }
  return sha.hex();
}

}  // namespace xdit::weights
