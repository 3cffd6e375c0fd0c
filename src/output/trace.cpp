#include "output/trace.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/file.h"

namespace xdit::output {

void write_safetensors(const std::filesystem::path& path, std::span<const TraceTensor> tensors,
                       const std::map<std::string, std::string>& metadata, bool overwrite) {
  // Wide elements first, so that every tensor is aligned to its element.
  std::vector<const TraceTensor*> order;
  for (const TraceTensor& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return size_of(a->dtype) > size_of(b->dtype); });

  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::vector<std::string_view> parts(2);
  std::size_t end = 0;
  for (const TraceTensor* tensor : order) {
    std::int64_t bytes = size_of(tensor->dtype);
    for (const std::int64_t side : tensor->shape) bytes *= side;
    XDIT_ASSERT(bytes == static_cast<std::int64_t>(tensor->bytes.size()));
    XDIT_ASSERT(tensor->name != "__metadata__" && !header.contains(tensor->name));
    const std::size_t begin = end;
    end += tensor->bytes.size();
    header[tensor->name] = {
        {"dtype", safetensors_name(tensor->dtype)}, {"shape", tensor->shape}, {"data_offsets", {begin, end}}};
    parts.emplace_back(reinterpret_cast<const char*>(tensor->bytes.data()), tensor->bytes.size());
  }
  std::string text = header.empty() ? "{}" : header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  parts[0] = length;
  parts[1] = text;
  write_file_atomically(path, parts, overwrite);
}

}  // namespace xdit::output
