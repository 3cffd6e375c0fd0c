#include "weights/key_map.h"

#include "tests/catch.h"
#include "tests/weights/support.h"

namespace xdit::weights::test {
namespace {

/// "a" [2, 3] of BF16, "b" [1, 3] of BF16, "c" [2, 3] of F32, "s" a single F32, "i" [2] of I64; a letter an
/// element.
struct Fixture {
  TemporaryFolder folder;
  TensorTable table;
  KeyMap keys;
  Fixture() {
    write(folder.path / "1", safetensors({{"a", DType::kBF16, {2, 3}, "001122334455"},
                                          {"b", DType::kBF16, {1, 3}, "667788"},
                                          {"s", DType::kF32, {}, "ssss"}}));
    write(folder.path / "2", safetensors({{"c", DType::kF32, {2, 3}, "AAAABBBBCCCCDDDDEEEEFFFF"}}));
    merge(table, read_safetensors(folder.path / "1"));
    merge(table, read_safetensors(folder.path / "2"));
    keys = identity_map(table);
  }
};
const Ignored kAll{""};

TEST_CASE("a parameter is its tensor's bytes") {
  const Fixture f;
  const std::vector<Parameter> wanted{parameter("c", {2, 3}), parameter("a", {2, 3}), parameter("s", {}),
                                      parameter("b", {1, 3})};
  const std::vector<Placed> placed = place(wanted, f.table, f.keys);
  REQUIRE(placed.size() == 4);
  CHECK(placed[0].name == "c");
  CHECK(bytes_of(placed[0], f.table) == "AAAABBBBCCCCDDDDEEEEFFFF");
  CHECK(bytes_of(placed[1], f.table) == "001122334455");
  CHECK(bytes_of(placed[2], f.table) == "ssss");
  CHECK(placed[2].shape.empty());
  CHECK(bytes_of(placed[3], f.table) == "667788");
}

TEST_CASE("parts are stacked along dimension 0, and neighbours in a file are one piece") {
  const Fixture f;
  const std::vector<Parameter> wanted{stacked("ab", {{"a", {2, 3}}, {"b", {1, 3}}}),
                                      stacked("ba", {{"b", {1, 3}}, {"a", {2, 3}}})};
  const std::vector<Placed> placed = place(wanted, f.table, f.keys, kAll);
  CHECK(placed[0].shape == std::vector<std::int64_t>{3, 3});
  CHECK(placed[0].pieces.size() == 1);
  CHECK(bytes_of(placed[0], f.table) == "001122334455667788");
  CHECK(placed[1].pieces.size() == 2);
  CHECK(bytes_of(placed[1], f.table) == "667788001122334455");
}

TEST_CASE("parts of several dtypes keep theirs") {
  const Fixture f;
  const std::vector<Parameter> wanted{stacked("abc", {{"a", {2, 3}}, {"c", {2, 3}}, {"b", {1, 3}}})};
  const std::vector<Piece> pieces = place(wanted, f.table, f.keys, kAll).front().pieces;
  REQUIRE(pieces.size() == 3);
  std::int64_t next = 0;
  for (const Piece& piece : pieces) {
    CHECK(piece.first_element == next);
    CHECK(piece.bytes == static_cast<std::uint64_t>(piece.elements * size_of(piece.dtype)));
    next += piece.elements;
  }
  CHECK(next == 15);
  CHECK(pieces[0].dtype == DType::kBF16);
  CHECK(pieces[1].dtype == DType::kF32);
  CHECK(f.table.files.at(static_cast<std::size_t>(pieces[1].file)) == f.folder.path / "2");
}

TEST_CASE("slices are rows, in the order of the key map") {
  Fixture f;
  f.keys["swapped"] = {{"a", 1, 1}, {"a", 0, 1}};
  f.keys["row"] = {{"c", 1, 1}};
  f.keys["none"] = {{"c", 2, 0}};
  const std::vector<Parameter> wanted{parameter("swapped", {2, 3}), parameter("row", {1, 3}),
                                      parameter("none", {0, 3})};
  const std::vector<Placed> placed = place(wanted, f.table, f.keys, kAll);
  CHECK(bytes_of(placed[0], f.table) == "334455001122");
  CHECK(bytes_of(placed[1], f.table) == "DDDDEEEEFFFF");
  CHECK(placed[2].pieces.empty());
}

std::string error_for(const Fixture& f, const std::vector<Parameter>& wanted, const Ignored& ignored = kAll) {
  return error_of([&] { (void)place(wanted, f.table, f.keys, ignored); });
}

TEST_CASE("a missing tensor is named with its neighbours in the file and how many more there are") {
  const Fixture f;
  const std::string error =
      error_for(f, {parameter("aa", {1}), parameter("xyzxyz", {1}), parameter("a", {2, 3})}, {});
  CHECK_THAT(error, ContainsSubstring("tensor \"aa\" is missing (and 1 more); there is \"b\""));
  CHECK_THAT(error, ContainsSubstring((f.folder.path / "1").string()));
}

TEST_CASE("a wrong shape says file, tensor, expected and found") {
  const Fixture f;
  CHECK_THAT(error_for(f, {parameter("c", {3, 2})}),
             ContainsSubstring((f.folder.path / "2").string() +
                               ": tensor \"c\": expected shape [3, 2], found [2, 3]"));
  CHECK_THAT(error_for(f, {parameter("c", {6})}), ContainsSubstring("found [2, 3]"));
  CHECK_THAT(error_for(f, {parameter("c", {})}), ContainsSubstring("expected shape [], found [2, 3]"));
  CHECK_THAT(error_for(f, {parameter("c", {2, 3, 1})}), ContainsSubstring("found [2, 3]"));
  CHECK_THAT(error_for(f, {parameter("s", {1})}), ContainsSubstring("expected shape [1], found []"));
}

TEST_CASE("slices that do not make the wanted shape are refused") {
  Fixture f;
  f.keys["few"] = {{"a", 0, 1}};
  f.keys["mixed"] = {{"a", 0, 2}, {"s", 0, 1}};
  f.keys["scalars"] = {{"s", 0, 1}, {"s", 0, 1}};
  f.keys["beyond"] = {{"a", 1, 2}};
  f.keys["nowhere"] = {{"q", 0, 1}};
  f.keys["nothing"] = {};
  CHECK_THAT(error_for(f, {parameter("few", {2, 3})}),
             ContainsSubstring("tensor \"a\": expected shape [2, 3] for few, found [1, 3]"));
  CHECK_THAT(error_for(f, {parameter("mixed", {3, 3})}),
             ContainsSubstring("expected shape [3, 3] for mixed"));
  CHECK_THAT(error_for(f, {parameter("mixed", {})}), ContainsSubstring("expected shape [] for mixed"));
  CHECK_THAT(error_for(f, {parameter("scalars", {})}), ContainsSubstring("expected shape [] for scalars"));
  CHECK_THAT(error_for(f, {parameter("beyond", {2, 3})}), ContainsSubstring("\"beyond\" is missing"));
  CHECK_THAT(error_for(f, {parameter("nowhere", {1})}), ContainsSubstring("\"nowhere\" is missing"));
  CHECK_THAT(error_for(f, {parameter("nothing", {0})}), ContainsSubstring("\"nothing\" is missing"));
}

TEST_CASE("tensors that nothing wants are refused unless they are to be ignored") {
  const Fixture f;
  const std::vector<Parameter> wanted{parameter("a", {2, 3}), parameter("b", {1, 3})};
  const std::string error = error_for(f, wanted, {"s"});
  CHECK_THAT(error, ContainsSubstring((f.folder.path / "2").string() +
                                      ": tensor \"c\" has no place in this model\n"));
  CHECK_THAT(error_for(f, wanted, {}), ContainsSubstring("\"c\" has no place in this model (and 1 more)"));
  CHECK(error_for(f, wanted, {"s", "c"}).empty());
}

TEST_CASE("integers and fp8 without their scales are no weights") {
  const TemporaryFolder folder;
  write(folder.path / "1",
        safetensors({{"i", DType::kI64, {1}, "12345678"}, {"q", DType::kF8E4M3, {1}, "1"}}));
  const TensorTable table = read_safetensors(folder.path / "1");
  for (const auto& [name, found] : {std::pair{"i", "I64"}, std::pair{"q", "F8_E4M3"}}) {
    const std::vector<Parameter> wanted{parameter(name, {1})};
    CHECK_THAT(
        error_of([&] { (void)place(wanted, table, identity_map(table), kAll); }),
        ContainsSubstring(fmt::format("tensor \"{}\": expected F32, F16 or BF16, found {}", name, found)));
  }
}

TEST_CASE("compare lists everything that is wrong") {
  const Fixture f;
  const std::vector<Parameter> wanted{parameter("x", {1}), parameter("y", {1}), parameter("a", {1}),
                                      parameter("b", {1})};
  const Mismatch mismatch = compare(wanted, f.table, f.keys);
  CHECK(mismatch.missing == std::vector<std::string>{"x", "y"});
  CHECK(mismatch.extra == std::vector<std::string>{"c", "s"});
  REQUIRE(mismatch.unfit.size() == 2);
  CHECK(mismatch.unfit[1].file_name == "b");
  CHECK(mismatch.unfit[1].why == "expected shape [1], found [1, 3]");
}

}  // namespace
}  // namespace xdit::weights::test
