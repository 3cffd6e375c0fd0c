#include "text/tokenizer/spiece.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <optional>
#include <utility>

#include "core/error.h"
#include "text/tokenizer/unicode.h"

namespace xdit::text {

namespace {

enum class Wire : std::uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  std::uint64_t number;
  Wire wire;
  std::uint64_t value;     // of a varint or a fixed number
  std::string_view bytes;  // of kBytes
};

// The fields of one message, in file order (protobuf's encoding guide). A field's place in errors is its byte
// in the file.
class Fields {
 public:
  Fields(std::string_view bytes, std::string_view file, const std::string& where)
      : bytes_(bytes), file_(file), where_(where) {}

  std::optional<Field> next() {
    if (bytes_.empty()) return std::nullopt;
    const std::uint64_t tag = varint();
    Field field{tag >> 3U, static_cast<Wire>(tag & 7U), 0, {}};
    if (field.number == 0) fail("field number 0");
    switch (field.wire) {
      case Wire::kVarint:
        field.value = varint();
        break;
      case Wire::kFixed64:
        field.value = fixed(8);
        break;
      case Wire::kFixed32:
        field.value = fixed(4);
        break;
      case Wire::kBytes:
        field.bytes = take(varint());
        break;
      default:
        fail(fmt::format("wire type {}", tag & 7U));
    }
    return field;
  }

  // Messages and strings inside this one.
  [[nodiscard]] Fields message(const Field& field) const { return {bytes(field), file_, where_}; }
  [[nodiscard]] std::string_view bytes(const Field& field) const {
    return expect(field, Wire::kBytes), field.bytes;
  }
  [[nodiscard]] std::uint64_t number(const Field& field) const {
    return expect(field, Wire::kVarint), field.value;
  }
  [[nodiscard]] double score(const Field& field) const {
    expect(field, Wire::kFixed32);
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    if (!std::isfinite(value)) fail("a score that is not finite");
    return static_cast<double>(value);
  }
  [[noreturn]] void fail(const std::string& why) const {
    throw Error(
        ExitCode::kModel,
        fmt::format("not a sentencepiece model: {} before byte {}", why, bytes_.data() - file_.data()),
        where_);
  }

 private:
  void expect(const Field& field, Wire wire) const {
    if (field.wire != wire)
      fail(fmt::format("field {} has wire type {}", field.number, static_cast<int>(field.wire)));
  }
  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size()) fail("a field longer than its message");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  std::uint64_t fixed(std::uint64_t count) {
    std::uint64_t value = 0;
    unsigned shift = 0;
    for (const char c : take(count)) {
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(c)) << shift;
      shift += 8;
    }
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number of more than 64 bits");
  }

  std::string_view bytes_, file_;
  const std::string& where_;
};

SentencePieceModel::Piece parse_piece(Fields fields) {
  SentencePieceModel::Piece piece;
  while (const auto field = fields.next()) {
    if (field->number == 1) piece.text = fields.bytes(*field);
    if (field->number == 2) piece.score = fields.score(*field);
    if (field->number == 3) piece.type = fields.number(*field);
  }
  if (piece.text.empty()) fields.fail("an empty piece");
  if (valid_utf8(piece.text) != piece.text) fields.fail("a piece that is not UTF-8");
  return piece;
}

}  // namespace

SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& where) {
  constexpr std::uint64_t kPieces = 1;
  constexpr std::uint64_t kTrainerSpec = 2;
  constexpr std::uint64_t kNormalizerSpec = 3;
  constexpr std::uint64_t kModelType = 3;
  constexpr std::uint64_t kUnknownId = 40;
  constexpr std::uint64_t kPrecompiledCharsmap = 2;

  SentencePieceModel model;
  Fields fields(bytes, bytes, where);
  while (const auto field = fields.next()) {
    if (field->number == kPieces) model.pieces.push_back(parse_piece(fields.message(*field)));
    if (field->number == kTrainerSpec) {
      Fields trainer = fields.message(*field);
      while (const auto setting = trainer.next()) {
        if (setting->number == kModelType) model.model_type = trainer.number(*setting);
        if (setting->number == kUnknownId) model.unknown = trainer.number(*setting);
      }
    }
    if (field->number == kNormalizerSpec) {
      Fields normalizer = fields.message(*field);
      while (const auto setting = normalizer.next())
        if (setting->number == kPrecompiledCharsmap) model.charsmap = normalizer.bytes(*setting);
    }
  }
  return model;
}

}  // namespace xdit::text
