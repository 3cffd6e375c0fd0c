#include "weights/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <streambuf>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "weights/describe.h"

namespace xdit::weights {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's
// Far above any real file. Without them a header of 90 MB could cost a gigabyte of small allocations.
constexpr std::size_t kMaxEntries = 200'000;
constexpr std::size_t kMaxDimensions = 32;
constexpr std::size_t kMaxTokenBytes = std::size_t{16} << 20U;

/// The header's text, read a block at a time.
class HeaderText final : public std::streambuf {
 public:
  HeaderText(const File& file, const fs::path& path, std::uint64_t bytes)
      : file_(file), path_(path), left_(bytes) {}
  void token_ended() noexcept { token_bytes_ = 0; }

 protected:
  int_type underflow() override {
    const std::size_t bytes = std::min<std::uint64_t>(left_, block_.size());
    if (bytes == 0) return traits_type::eof();
    if (file_.read_at(std::as_writable_bytes(std::span(block_).first(bytes)), at_) < bytes)
      fail_model(path_, "the file ends inside its header: it is truncated", "download it again");
    // the JSON library takes a NUL for the end of its input
    if (std::memchr(block_.data(), 0, bytes) != nullptr)
      fail_model(path_, "header: expected text, found a NUL byte");
    token_bytes_ += bytes;
    if (token_bytes_ > kMaxTokenBytes)
      fail_model(path_, "header: expected texts of at most 16 MiB, found a longer one");
    at_ += bytes;
    left_ -= bytes;
    setg(block_.data(), block_.data(), block_.data() + bytes);
    return traits_type::to_int_type(block_[0]);
  }

 private:
  const File& file_;
  const fs::path& path_;
  std::array<char, 65536> block_{};
  std::uint64_t at_ = sizeof(std::uint64_t);
  std::uint64_t left_;
  std::size_t token_bytes_ = 0;
};

/// Takes {"__metadata__": {KEY: TEXT, ...}, NAME: {"dtype": ..., "shape": [...], "data_offsets": [begin,
/// end]}, ...} and nothing else. FileTensor::offset counts from the end of the header.
class HeaderParser final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderParser(const fs::path& path, HeaderText& text, TensorTable& table)
      : path_(path), text_(text), table_(table) {}

  bool null() override { unexpected("null"); }
  bool boolean(bool value) override { unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override {
    unexpected(std::to_string(value));
  }                                                                               // a sign was written
  bool number_float(number_float_t /*value*/, const string_t& digits) override {  // also beyond 64 bits
    unexpected(name_text(digits));
  }
  bool binary(binary_t& /*value*/) override { unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    text_.token_ended();
    const bool is_size = state_ == State::kShape && value <= std::numeric_limits<std::int64_t>::max();
    if (!is_size && state_ != State::kOffsets) unexpected(std::to_string(value));
    if (is_size) tensor_.shape.push_back(static_cast<std::int64_t>(value));
    if (!is_size) offsets_.push_back(value);
    if (tensor_.shape.size() > kMaxDimensions)
      fail_here(fmt::format("more than {} dimensions", kMaxDimensions));
    if (offsets_.size() > 2) unexpected("a third number");
    return true;
  }

  bool string(string_t& value) override {
    text_.token_ended();
    if (state_ == State::kMetadataText) {
      table_.metadata.insert_or_assign(name_, std::move(value));
      state_ = State::kMetadata;
      return true;
    }
    const std::optional<DType> dtype = from_safetensors_name(value);
    if (state_ != State::kDType || !dtype) unexpected(name_text(value));
    tensor_.dtype = *dtype;
    state_ = State::kTensor;
    return true;
  }

  bool start_object(std::size_t /*elements*/) override {
    if (state_ == State::kStart) return enter(State::kTop);
    if (state_ == State::kMetadataStart) return enter(State::kMetadata);
    if (state_ != State::kTensorStart) unexpected("an object");
    tensor_ = FileTensor{};
    offsets_.clear();
    fields_.clear();
    return enter(State::kTensor);
  }

  bool key(string_t& name) override {
    text_.token_ended();
    if (state_ == State::kTensor) return field(name);
    const bool is_metadata = state_ == State::kMetadata;
    name_ = std::move(name);
    if (!is_metadata && name_ == "__metadata__") {
      if (std::exchange(seen_metadata_, true)) fail_here("the key stands twice");
      return enter(State::kMetadataStart);
    }
    const bool is_new = is_metadata ? table_.metadata.emplace(name_, "").second
                                    : table_.tensors.emplace(name_, FileTensor{}).second;
    if (!is_new) fail_here("the key stands twice");
    if (table_.metadata.size() + table_.tensors.size() > kMaxEntries)
      fail_here(fmt::format("more than {} entries", kMaxEntries));
    return enter(is_metadata ? State::kMetadataText : State::kTensorStart);
  }

  bool end_object() override {
    if (state_ == State::kTensor) finish_tensor();
    if (state_ == State::kTop) return enter(State::kEnd);
    name_.clear();
    return enter(State::kTop);
  }

  bool start_array(std::size_t /*elements*/) override {
    if (state_ == State::kShapeStart) return enter(State::kShape);
    if (state_ == State::kOffsetsStart) return enter(State::kOffsets);
    unexpected("a list");
  }

  bool end_array() override {
    if (state_ == State::kOffsets && offsets_.size() != 2)
      unexpected(fmt::format("{} numbers", offsets_.size()));
    return enter(State::kTensor);
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    fail_here(fmt::format("not valid JSON at byte {}", position + sizeof(std::uint64_t)));
  }

 private:
  enum class State : std::uint8_t {
    kStart,
    kTop,
    kMetadataStart,
    kMetadata,
    kMetadataText,
    kTensorStart,
    kTensor,
    kDType,
    kShapeStart,
    kShape,
    kOffsetsStart,
    kOffsets,
    kEnd
  };

  bool enter(State state) {
    state_ = state;
    return true;
  }

  bool field(const std::string& name) {
    if (name != "dtype" && name != "shape" && name != "data_offsets") unexpected(name_text(name));
    if (std::find(fields_.begin(), fields_.end(), name) != fields_.end()) fail_here(name + " stands twice");
    fields_.push_back(name);
    if (name == "dtype") return enter(State::kDType);
    return enter(name == "shape" ? State::kShapeStart : State::kOffsetsStart);
  }

  void finish_tensor() {
    if (fields_.size() != 3) fail_here("expected dtype, shape and data_offsets, found only some of them");
    std::uint64_t bytes = static_cast<std::uint64_t>(size_of(tensor_.dtype));
    for (const std::int64_t size : tensor_.shape)
      if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes))
        fail_here(fmt::format("shape {} is larger than any file", shape_text(tensor_.shape)));
    if (offsets_[1] < offsets_[0] || offsets_[1] - offsets_[0] != bytes)
      fail_here(fmt::format("expected {} bytes ({} of {}), found data_offsets [{}, {}]", bytes,
                            shape_text(tensor_.shape), safetensors_name(tensor_.dtype), offsets_[0],
                            offsets_[1]));
    tensor_.offset = offsets_[0];
    tensor_.bytes = bytes;
    tensor_.shape.shrink_to_fit();
    table_.tensors[name_] = std::move(tensor_);
  }

  [[nodiscard]] std::string_view expected() const {
    switch (state_) {
      case State::kStart:
        return "a JSON object";
      case State::kMetadataStart:
        return "an object of texts";
      case State::kMetadataText:
        return "text";
      case State::kTensorStart:
        return "an object with dtype, shape and data_offsets";
      case State::kTensor:
        return "dtype, shape or data_offsets";
      case State::kDType:
        return "a dtype (F32, F16, BF16, F8_E4M3, ...)";
      case State::kShapeStart:
        return "a list of sizes";
      case State::kShape:
        return "a size (an integer, 0 or more)";
      case State::kOffsetsStart:
      case State::kOffsets:
        return "data_offsets [begin, end], integers";
      case State::kTop:
      case State::kMetadata:
      case State::kEnd:
        break;
    }
    return "the end";
  }

  [[noreturn]] void unexpected(const std::string& found) const {
    fail_here(fmt::format("expected {}, found {}", expected(), found));
  }
  [[noreturn]] void fail_here(const std::string& message) const {
    fail_model(path_,
               fmt::format("{}: {}", name_.empty() ? "header" : "tensor " + name_text(name_), message));
  }

  const fs::path& path_;
  HeaderText& text_;
  TensorTable& table_;
  State state_ = State::kStart;
  std::string name_;  // the tensor (or metadata key) at hand
  FileTensor tensor_;
  std::vector<std::uint64_t> offsets_;
  std::vector<std::string> fields_;
  bool seen_metadata_ = false;
};

/// Names what a file without a safetensors header is.
[[noreturn]] void refuse(const fs::path& path, std::string_view start) {
  const std::string convert = fmt::format(
      "python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{}', weights_only=True), "
      "'model.safetensors')\"",
      path.string());
  if (start.starts_with("GGUF"))
    fail_model(path, "this is a GGUF file: quantised weights that xdit-gen does not read",
               "the model's bf16 or fp16 safetensors");
  if (start.starts_with("PK\x03\x04") || start.starts_with("\x80\x02"))
    fail_model(path,
               "this is a pickle (.ckpt, .pt, .bin), which can run code: xdit-gen reads safetensors only",
               convert);
  if (start.starts_with("version https://git-lfs"))
    fail_model(path, "this is a Git LFS pointer, not the file itself", "git lfs pull");
  if (start.size() > sizeof(std::uint64_t) && start[sizeof(std::uint64_t)] == '{')
    fail_model(path, "the header is longer than the file or than 100 MB: the file is truncated or damaged",
               "download it again");
  fail_model(path, "not a safetensors file: its first 8 bytes are not the size of a header",
             "a .safetensors file");
}

/// Tensors must lie one after the other from the header to the end of the file.
void check_layout(const fs::path& path, const TensorTable& table, std::uint64_t data_bytes) {
  using Entry = std::pair<const std::string, FileTensor>;
  std::vector<const Entry*> order;
  order.reserve(table.tensors.size());
  for (const Entry& entry : table.tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->second.offset, a->second.bytes) < std::pair(b->second.offset, b->second.bytes);
  });
  std::uint64_t end = 0;
  for (const Entry* entry : order) {
    const auto& [name, tensor] = *entry;
    if (tensor.offset != end)
      fail_model(
          path,
          fmt::format(
              "tensor {}: expected data_offsets to begin at {}, where the tensor before it ends, found {}",
              name_text(name), end, tensor.offset));
    if (tensor.bytes > data_bytes - end)
      fail_model(path,
                 fmt::format("tensor {}: expected {} bytes of data, found {}: the file is truncated",
                             name_text(name), tensor.bytes, data_bytes - end),
                 "download it again");
    end += tensor.bytes;
  }
  if (end != data_bytes)
    fail_model(path, fmt::format("expected {} bytes of data, found {}: {} more than its tensors have", end,
                                 data_bytes, data_bytes - end));
}

}  // namespace

TensorTable read_safetensors(const fs::path& path) {
  std::error_code ignored;
  if (fs::exists(path, ignored) && !fs::is_regular_file(path, ignored))
    fail_model(path, "not a regular file");
  const File file = File::open_read(path, ExitCode::kModel);
  const std::uint64_t size = file.size();
  std::array<char, 32> start{};
  const std::size_t start_bytes = file.read_at(std::as_writable_bytes(std::span(start)), 0);
  std::uint64_t header_bytes = 0;
  for (std::size_t i = 0; i < sizeof header_bytes; ++i)
    header_bytes |= std::uint64_t{static_cast<unsigned char>(start.at(i))} << (8U * i);
  if (start_bytes < sizeof header_bytes || header_bytes > kMaxHeaderBytes ||
      header_bytes > size - sizeof header_bytes)
    refuse(path, std::string_view(start.data(), start_bytes));
  if (start.at(sizeof header_bytes) != '{')
    fail_model(path, "header: expected a JSON object");  // no byte order mark

  TensorTable table;
  table.files = {path};
  HeaderText text(file, path, header_bytes);
  std::istream stream(&text);
  HeaderParser parser(path, text, table);
  nlohmann::json::sax_parse(stream, &parser);
  check_layout(path, table, size - sizeof header_bytes - header_bytes);
  for (auto& [name, tensor] : table.tensors) tensor.offset += sizeof header_bytes + header_bytes;
  return table;
}

void merge(TensorTable& table, TensorTable more) {
  const auto first_file = static_cast<std::int32_t>(table.files.size());
  for (auto& [name, tensor] : more.tensors) {
    tensor.file += first_file;
    const auto [at, is_new] = table.tensors.emplace(name, std::move(tensor));
    if (!is_new)
      fail_model(more.files.at(0), fmt::format("tensor {} is also in {}", name_text(name),
                                               table.files.at(at->second.file).string()));
  }
  table.files.insert(table.files.end(), more.files.begin(), more.files.end());
  if (first_file == 0) table.metadata = std::move(more.metadata);
}

}  // namespace xdit::weights
