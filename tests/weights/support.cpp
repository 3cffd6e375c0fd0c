#include "tests/weights/support.h"

#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "weights/describe.h"
#include "weights/reader.h"

namespace xdit::weights::test {

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "xdit-weights-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

void write(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string safetensors(const std::string& header, const std::string& data) {
  std::string bytes;
  for (unsigned i = 0; i < 8; ++i) bytes += static_cast<char>(std::uint64_t{header.size()} >> (8U * i));
  return bytes + header + data;
}

std::string safetensors(const std::vector<Tensor>& tensors) {
  std::string header = "{";
  std::string data;
  for (const Tensor& tensor : tensors) {
    header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})",
                          data.empty() ? "" : ",", tensor.name, safetensors_name(tensor.dtype),
                          shape_text(tensor.shape), data.size(), data.size() + tensor.bytes.size());
    data += tensor.bytes;
  }
  return safetensors(header + "}", data);
}

std::vector<Tensor> load(const TensorTable& table) {
  std::vector<Tensor> tensors;
  tensors.reserve(table.tensors.size());
  for (const auto& [name, tensor] : table.tensors) {
    const std::string file = read(table.files.at(static_cast<std::size_t>(tensor.file)));
    tensors.push_back({name, tensor.dtype, tensor.shape, file.substr(tensor.offset, tensor.bytes)});
  }
  return tensors;
}

std::string bytes_of(const Placed& placed, const TensorTable& table) {
  std::uint64_t total = 0;
  for (const Piece& piece : placed.pieces) total += piece.bytes;
  std::string bytes(total, '\0');
  std::vector<Read> reads;
  for (const Piece& piece : placed.pieces) {
    auto* const to = reinterpret_cast<std::byte*>(bytes.data()) + piece.first_element * size_of(piece.dtype);
    reads.push_back({piece.file, piece.offset, piece.bytes, to});
  }
  const std::array threads{host_destination()};
  read_all(table.files, reads, threads);
  return bytes;
}

}  // namespace xdit::weights::test
