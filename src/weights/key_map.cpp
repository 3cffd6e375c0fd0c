#include "weights/key_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/nearest.h"
#include "weights/describe.h"

namespace xdit::weights {
namespace {

using Shape = std::vector<std::int64_t>;

std::int64_t rows_of(const Shape& shape) {
  return shape.empty() ? 1 : shape.front();
}
std::int64_t elements_of(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

bool holds_weights(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF64;
}

/// The slice's tensor, or nullptr where the table lacks it or its rows.
const FileTensor* find(const TensorTable& table, const Slice& slice) {
  const auto at = table.tensors.find(slice.file_name);
  if (at == table.tensors.end()) return nullptr;
  const std::int64_t rows = rows_of(at->second.shape);
  const bool inside = slice.first_row >= 0 && slice.rows >= 0 && slice.first_row <= rows - slice.rows;
  return inside ? &at->second : nullptr;
}

/// What keeps `slices` from being `wanted`, or "".
std::string misfit(const Wanted& wanted, const std::vector<Slice>& slices, const TensorTable& table) {
  const auto expected = [&](const Shape& found) {
    return fmt::format("expected shape {}{}, found {}", shape_text(wanted.shape),
                       slices.front().file_name == wanted.name ? "" : " for " + wanted.name,
                       shape_text(found));
  };
  Shape found;
  std::int64_t rows = 0;
  for (const Slice& slice : slices) {
    const FileTensor& tensor = table.tensors.at(slice.file_name);
    if (!holds_weights(tensor.dtype))
      return fmt::format("expected F32, F16 or BF16, found {}", safetensors_name(tensor.dtype));
    found = tensor.shape;
    rows += slice.rows;
    if (!found.empty()) found.front() = wanted.shape.empty() ? slice.rows : wanted.shape.front();
    if (found != wanted.shape) break;
  }
  if (!found.empty()) found.front() = rows;
  const bool fits = found == wanted.shape && (!found.empty() || slices.size() == 1);
  return fits ? "" : expected(found);
}

void append(std::vector<Piece>& pieces, const Piece& piece) {
  if (piece.elements == 0) return;
  Piece* last = pieces.empty() ? nullptr : &pieces.back();
  if (last != nullptr && last->file == piece.file && last->dtype == piece.dtype &&
      last->offset + last->bytes == piece.offset) {
    last->bytes += piece.bytes;
    last->elements += piece.elements;
  } else {
    pieces.push_back(piece);
  }
}

std::string and_more(std::size_t count) {
  return count > 1 ? fmt::format(" (and {} more)", count - 1) : "";
}

[[noreturn]] void fail(const Mismatch& mismatch, const TensorTable& table) {
  const auto file_of = [&](const std::string& name) {
    return table.files.at(table.tensors.at(name).file).string();
  };
  if (!mismatch.missing.empty()) {
    std::string where = table.files.empty() ? "the model" : table.files.front().string();
    if (table.files.size() > 1)
      where = fmt::format("{} (and its {} other files)", where, table.files.size() - 1);
    const auto few = std::span(mismatch.extra).first(std::min<std::size_t>(mismatch.extra.size(), 1000));
    const std::string near = nearest(mismatch.missing.front(), few);
    throw Error(ExitCode::kModel,
                fmt::format("tensor {} is missing{}{}", name_text(mismatch.missing.front()),
                            and_more(mismatch.missing.size()),
                            near.empty() ? "" : fmt::format("; there is {}", name_text(near))),
                where, "a complete file of the model that its config.json describes");
  }
  if (!mismatch.unfit.empty()) {
    const Mismatch::Unfit& first = mismatch.unfit.front();
    throw Error(ExitCode::kModel,
                fmt::format("tensor {}: {}{}", name_text(first.file_name), first.why,
                            and_more(mismatch.unfit.size())),
                file_of(first.file_name),
                "a bf16, fp16 or fp32 file of the model that its config.json describes");
  }
  const std::string& first = mismatch.extra.front();
  throw Error(ExitCode::kModel,
              fmt::format("tensor {} has no place in this model{}", name_text(first),
                          and_more(mismatch.extra.size())),
              file_of(first), "xdit-gen inspect FILE, which says what the file is");
}

}  // namespace

std::int64_t Parameter::block() const {
  const bool one = std::all_of(parts.begin(), parts.end(),
                               [&](const Wanted& part) { return part.block == parts.front().block; });
  return one && !parts.empty() ? parts.front().block : kNoBlock;
}

Parameter parameter(std::string name, Shape shape, std::int64_t block) {
  Parameter one{name, shape, {}};
  one.parts.push_back({std::move(name), std::move(shape), block});
  return one;
}

Parameter stacked(std::string name, std::vector<Wanted> parts) {
  XDIT_ASSERT(!parts.empty());
  Shape shape = parts.front().shape;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    XDIT_ASSERT(!shape.empty() && shape.size() == parts[i].shape.size());
    XDIT_ASSERT(std::equal(shape.begin() + 1, shape.end(), parts[i].shape.begin() + 1));
    shape.front() += parts[i].shape.front();
  }
  return {std::move(name), std::move(shape), std::move(parts)};
}

Slice whole(const std::string& file_name, const FileTensor& tensor) {
  return {file_name, 0, rows_of(tensor.shape)};
}

KeyMap identity_map(const TensorTable& table) {
  KeyMap keys;
  for (const auto& [name, tensor] : table.tensors) keys[name] = {whole(name, tensor)};
  return keys;
}

Mismatch compare(std::span<const Parameter> parameters, const TensorTable& table, const KeyMap& keys,
                 const Ignored& ignored) {
  Mismatch mismatch;
  std::set<std::string_view> used;
  for (const Parameter& parameter : parameters) {
    for (const Wanted& wanted : parameter.parts) {
      const auto at = keys.find(wanted.name);
      const bool is_there = at != keys.end() && !at->second.empty() &&
                            std::all_of(at->second.begin(), at->second.end(),
                                        [&](const Slice& slice) { return find(table, slice) != nullptr; });
      if (!is_there) {
        mismatch.missing.push_back(wanted.name);
        continue;
      }
      for (const Slice& slice : at->second) used.insert(slice.file_name);
      std::string why = misfit(wanted, at->second, table);
      if (!why.empty()) mismatch.unfit.push_back({at->second.front().file_name, std::move(why)});
    }
  }
  for (const auto& entry : table.tensors) {
    const std::string& name = entry.first;
    const bool may_stay = std::any_of(ignored.begin(), ignored.end(),
                                      [&](const std::string& start) { return name.starts_with(start); });
    if (!may_stay && !used.contains(name)) mismatch.extra.push_back(name);
  }
  return mismatch;
}

std::vector<Placed> place(std::span<const Parameter> parameters, const TensorTable& table, const KeyMap& keys,
                          const Ignored& ignored) {
  const Mismatch mismatch = compare(parameters, table, keys, ignored);
  if (!mismatch.missing.empty() || !mismatch.unfit.empty() || !mismatch.extra.empty()) fail(mismatch, table);
  std::vector<Placed> all;
  all.reserve(parameters.size());
  for (const Parameter& parameter : parameters) {
    Placed placed{parameter.name, parameter.shape, {}};
    std::int64_t first_element = 0;
    for (const Wanted& wanted : parameter.parts) {
      for (const Slice& slice : keys.at(wanted.name)) {
        const FileTensor& tensor = table.tensors.at(slice.file_name);
        const std::int64_t rows = rows_of(tensor.shape);
        const std::int64_t row_elements = rows == 0 ? 0 : elements_of(tensor.shape) / rows;
        const std::int64_t elements = slice.rows * row_elements;
        const auto size = static_cast<std::uint64_t>(size_of(tensor.dtype));
        append(
            placed.pieces,
            {tensor.file, tensor.offset + static_cast<std::uint64_t>(slice.first_row * row_elements) * size,
             static_cast<std::uint64_t>(elements) * size, tensor.dtype, first_element, elements});
        first_element += elements;
      }
    }
    XDIT_ASSERT(first_element == elements_of(parameter.shape));
    all.push_back(std::move(placed));
  }
  return all;
}

}  // namespace xdit::weights
