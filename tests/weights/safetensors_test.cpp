#include "weights/safetensors.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/catch.h"
#include "tests/weights/support.h"

namespace xdit::weights::test {
namespace {

const std::string kOne = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
const std::string kEight(8, 'x');

std::string tensor(const std::string& fields) {
  return "{\"a\":{" + fields + "}}";
}

std::string nested(const std::string& open, const std::string& close, int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

struct Hostile {
  std::string header;
  std::string data;
  std::string says;  // part of the error
};

const std::vector<Hostile>& hostile() {
  static const std::vector<Hostile> cases{
      // JSON
      {"", "", "JSON"},
      {"[]", "", "expected a JSON object"},
      {"null", "", "expected a JSON object"},
      {" {}", "", "expected a JSON object"},
      {"\xef\xbb\xbf{}", "", "expected a JSON object"},
      {"{", "", "not valid JSON"},
      {"{}}", "", "not valid JSON"},
      {"{}{}", "", "not valid JSON"},
      {std::string("{}\0", 3), "", "NUL"},
      {std::string("{}\0garbage", 10), "", "NUL"},
      {"{" + kOne + ",}", kEight, "not valid JSON"},
      {"{/**/}", "", "not valid JSON"},
      {"{'a':1}", "", "not valid JSON"},
      {"{\"\xff\":1}", "", "not valid JSON"},
      {"{\"\xc0\xaf\":1}", "", "not valid JSON"},      // overlong
      {"{\"\xed\xa0\x80\":1}", "", "not valid JSON"},  // surrogate
      {R"({"\ud800":1})", "", "not valid JSON"},       // half of a pair
      {"{\"a\nb\":1}", "", "not valid JSON"},          // control character
      {"{\"a\":" + nested("[", "]", 100'000) + "}", "", "found a list"},
      {nested("{\"a\":", "}", 100'000), "", "expected dtype, shape or data_offsets"},
      {"{\"__metadata__\":" + nested("{\"a\":", "}", 100'000) + "}", "", "expected text, found an object"},
      // keys
      {"{" + kOne + "," + kOne + "}", kEight, "tensor \"a\": the key stands twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", "", "the key stands twice"},
      {R"({"__metadata__":{"k":"1","k":"1"}})", "", "\"k\": the key stands twice"},
      {tensor(R"("dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1])"), "x", "dtype stands twice"},
      {tensor(R"("dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1])"), "x", "shape stands twice"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[0,1],"data_offsets":[0,1])"), "x", "stands twice"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[0,1],"extra":1)"), "x", "found \"extra\""},
      {tensor(R"("dtype":"U8","shape":[])"), "", "found only some of them"},
      {tensor(R"("dtype":"U8","data_offsets":[0,1])"), "x", "found only some of them"},
      {tensor(R"("shape":[],"data_offsets":[0,1])"), "x", "found only some of them"},
      {tensor(""), "", "found only some of them"},
      {R"({"a":null})", "", "found null"},
      {R"({"a":[]})", "", "found a list"},
      {R"({"a":"b"})", "", "found \"b\""},
      {R"({"a":7})", "", "found 7"},
      // metadata
      {R"({"__metadata__":null})", "", "expected an object of texts, found null"},
      {R"({"__metadata__":[]})", "", "expected an object of texts, found a list"},
      {R"({"__metadata__":{"k":1}})", "", "expected text, found 1"},
      {R"({"__metadata__":{"k":null}})", "", "expected text, found null"},
      {R"({"__metadata__":{"k":{}}})", "", "expected text, found an object"},
      {R"({"__metadata__":{"k":["a"]}})", "", "expected text, found a list"},
      // dtype
      {tensor(R"("dtype":"F31","shape":[],"data_offsets":[0,1])"), "x", "found \"F31\""},
      {tensor(R"("dtype":"f32","shape":[],"data_offsets":[0,4])"), "xxxx", "found \"f32\""},
      {tensor(R"("dtype":4,"shape":[],"data_offsets":[0,4])"), "xxxx", "expected a dtype"},
      {tensor(R"("dtype":null,"shape":[],"data_offsets":[0,4])"), "xxxx", "expected a dtype"},
      // shape
      {tensor(R"("dtype":"U8","shape":1,"data_offsets":[0,1])"), "x", "expected a list of sizes, found 1"},
      {tensor(R"("dtype":"U8","shape":null,"data_offsets":[0,1])"), "x", "expected a list of sizes"},
      {tensor(R"("dtype":"U8","shape":"1","data_offsets":[0,1])"), "x", "expected a list of sizes"},
      {tensor(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"), "x", "expected a size"},
      {tensor(R"("dtype":"U8","shape":[1e0],"data_offsets":[0,1])"), "x", "expected a size"},
      {tensor(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), "x", "expected a size"},
      {tensor(R"("dtype":"U8","shape":[-0],"data_offsets":[0,0])"), "", "expected a size"},
      {tensor(R"("dtype":"U8","shape":[true],"data_offsets":[0,1])"), "x", "expected a size"},
      {tensor(R"("dtype":"U8","shape":["1"],"data_offsets":[0,1])"), "x", "expected a size"},
      {tensor(R"("dtype":"U8","shape":[[1]],"data_offsets":[0,1])"), "x", "expected a size"},
      {tensor(R"("dtype":"U8","shape":[01],"data_offsets":[0,1])"), "x", "not valid JSON"},
      {tensor(R"("dtype":"U8","shape":[18446744073709551617],"data_offsets":[0,1])"), "x", "expected a size"},
      {tensor(R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1])"), "x", "expected a size"},
      {tensor(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), "",
       "larger than any file"},
      {tensor(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"), "",
       "larger than any file"},
      {tensor(R"("dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0])"), "",
       "larger than any"},
      {tensor(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],)"
              R"("data_offsets":[0,1])"),
       "x", "more than 32 dimensions"},
      // offsets
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[])"), "x", "found 0 numbers"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[1])"), "x", "found 1 numbers"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[0,1,2])"), "x", "found a third number"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":1)"), "x", "expected data_offsets"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":{"0":1})"), "x", "expected data_offsets"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[0.0,1])"), "x", "expected data_offsets"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[-1,0])"), "x", "expected data_offsets"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[0,18446744073709551617])"), "x",
       "expected data_offsets"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[18446744073709551615,0])"), "x", "expected 1 bytes"},
      {tensor(R"("dtype":"U8","shape":[],"data_offsets":[1,0])"), "x", "expected 1 bytes"},
      {tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "xxxx", "expected 8 bytes ([2] of F32)"},
      {tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,12])"), "xxxxxxxxxxxx", "expected 8 bytes"},
      {tensor(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), "xx", "begin at 0"},
      {tensor(R"("dtype":"U8","shape":[0],"data_offsets":[7,7])"), "", "begin at 0"},
      {"{" + kOne + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}})", kEight + "xx",
       "tensor \"b\": expected data_offsets to begin at 8"},
      {"{" + kOne + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[7,8]}})", kEight, "begin at 8"},
      {"{" + kOne + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", kEight, "begin at 8"},
      {tensor(R"("dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807])"), "x",
       "expected 9223372036854775807 bytes of data, found 1: the file is truncated"},
      // the end of the file
      {"{" + kOne + "}", "", "found 0: the file is truncated"},
      {"{" + kOne + "}", "1234567", "expected 8 bytes of data, found 7: the file is truncated"},
      {"{" + kOne + "}", kEight + "x", "1 more than its tensors have"},
      {"{}", "x", "expected 0 bytes of data, found 1"},
  };
  return cases;
}

TEST_CASE("every malformed header is refused with what was expected") {
  const TemporaryFolder folder;
  const fs::path file = folder.path / "hostile.safetensors";
  for (const Hostile& one : hostile()) {
    write(file, safetensors(one.header, one.data));
    CAPTURE(one.header.substr(0, 200));
    const std::string error = error_of([&] { (void)read_safetensors(file); });
    CHECK_THAT(error, ContainsSubstring(one.says));
    CHECK_THAT(error, ContainsSubstring(file.string()));
    CHECK(error.size() < 1000);
  }
}

TEST_CASE("a file that is cut anywhere is refused") {
  const TemporaryFolder folder;
  const std::string good = read(data_folder() / "tiny-dev/text_encoder/model.safetensors");
  const fs::path file = folder.path / "cut.safetensors";
  for (std::size_t bytes = 0; bytes < good.size(); bytes += bytes < 64 ? 1 : 997) {
    write(file, good.substr(0, bytes));
    CAPTURE(bytes);
    CHECK(!error_of([&] { (void)read_safetensors(file); }).empty());
  }
}

TEST_CASE("what is no regular file is refused, without waiting for a writer") {
  const TemporaryFolder folder;
  CHECK_THAT(error_of([&] { (void)read_safetensors(folder.path); }), ContainsSubstring("not a regular file"));
  CHECK_THAT(error_of([&] { (void)read_safetensors(folder.path / "none"); }),
             ContainsSubstring("cannot open"));
  const fs::path pipe = folder.path / "pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  CHECK_THAT(error_of([&] { (void)read_safetensors(pipe); }), ContainsSubstring("not a regular file"));
}

TEST_CASE("names in errors cannot drive a terminal") {
  const TemporaryFolder folder;
  write(folder.path / "a", safetensors("{\"\\u001b[2J\xc2\x9b" + std::string(5000, 'a') + "\":1}", ""));
  const std::string error = error_of([&] { (void)read_safetensors(folder.path / "a"); });
  CHECK_THAT(error, ContainsSubstring("\\x1b[2J\\xc2\\x9b"));
  CHECK(error.size() < 600);
}

TEST_CASE("a header is read as it stands") {
  const TemporaryFolder folder;
  const fs::path file = folder.path / "good.safetensors";
  const std::string header =
      R"({"__metadata__":{"format":"pt","é":""}, "b":{"shape":[2,3],"data_offsets":[4,16],"dtype":"BF16"},)"
      "\n\t"
      R"("a\"":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("":{"dtype":"I64","shape":[5,0],"data_offsets":[16,16]}}  )";
  write(file, safetensors(header, std::string(16, 'x')));
  const TensorTable table = read_safetensors(file);
  CHECK(table.files == std::vector<fs::path>{file});
  CHECK(table.metadata == std::map<std::string, std::string>{{"format", "pt"}, {"é", ""}});
  REQUIRE(table.tensors.size() == 3);
  const FileTensor& b = table.tensors.at("b");
  CHECK(b.dtype == DType::kBF16);
  CHECK(b.shape == std::vector<std::int64_t>{2, 3});
  CHECK(b.bytes == 12);
  CHECK(b.offset == 8 + header.size() + 4);
  CHECK(table.tensors.at("a\"").offset == 8 + header.size());
  CHECK(table.tensors.at("").shape == std::vector<std::int64_t>{5, 0});
  write(file, safetensors("{}", ""));
  CHECK(read_safetensors(file).tensors.empty());
}

TEST_CASE("merged tables keep each tensor's file") {
  const TemporaryFolder folder;
  write(folder.path / "1", safetensors({{"a", DType::kU8, {1}, "1"}}));
  write(folder.path / "2", safetensors({{"b", DType::kU8, {1}, "2"}}));
  write(folder.path / "3", safetensors({{"a", DType::kU8, {1}, "3"}}));
  TensorTable table;
  merge(table, read_safetensors(folder.path / "1"));
  merge(table, read_safetensors(folder.path / "2"));
  CHECK(table.files.at(static_cast<std::size_t>(table.tensors.at("a").file)) == folder.path / "1");
  CHECK(table.files.at(static_cast<std::size_t>(table.tensors.at("b").file)) == folder.path / "2");
  const std::string error = error_of([&] { merge(table, read_safetensors(folder.path / "3")); });
  CHECK_THAT(error, ContainsSubstring("tensor \"a\" is also in " + (folder.path / "1").string()));
}

/// Peak memory of a process that reads `file`, in MB; 0 if it refuses the file.
std::int64_t megabytes_to_read(const fs::path& file) {
  const pid_t child = fork();
  if (child == 0) _exit(error_of([&] { (void)read_safetensors(file); }).empty() ? 0 : 1);
  int status = 0;
  rusage usage{};
  REQUIRE(wait4(child, &status, 0, &usage) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status) == 0 ? usage.ru_maxrss / 1024 : 0;
}

std::string repeated(std::size_t count) {
  std::string text;
  text.resize(count, 'x');
  return text;
}

/// A header of long texts, `bytes` long.
std::string long_header(std::size_t bytes) {
  std::string header = R"({"__metadata__":{)";
  for (int key = 0; key < 7; ++key)
    header += fmt::format(R"({}"{}":"{}")", key == 0 ? "" : ",", key, repeated(14'000'000));
  header += "}";
  header.resize(bytes - 1, ' ');
  return header + "}";
}

TEST_CASE("a header of 100 MB is read in bounded memory, one byte more is refused") {
  const TemporaryFolder folder;
  const fs::path file = folder.path / "large.safetensors";
  write(file, safetensors(long_header(100'000'000), ""));
  const std::int64_t megabytes = megabytes_to_read(file);
  CHECK(megabytes > 0);
#ifndef __SANITIZE_ADDRESS__
  CHECK(megabytes < 250);
#endif
  write(file, safetensors(long_header(100'000'001), ""));
  CHECK_THAT(error_of([&] { (void)read_safetensors(file); }), ContainsSubstring("100 MB"));
}

TEST_CASE("a header of many small entries or one huge text is refused early") {
  const TemporaryFolder folder;
  const fs::path file = folder.path / "large.safetensors";
  std::string header = R"({"__metadata__":{)";
  for (int i = 0; i < 300'000; ++i) header += fmt::format(R"("{}":"",)", i);
  write(file, safetensors(header + R"("z":""}})", ""));
  CHECK_THAT(error_of([&] { (void)read_safetensors(file); }), ContainsSubstring("more than 200000 entries"));
  write(file, safetensors(fmt::format(R"({{"{}":1}})", repeated(20'000'000)), ""));
  CHECK_THAT(error_of([&] { (void)read_safetensors(file); }), ContainsSubstring("at most 16 MiB"));
}

TEST_CASE("other formats are named, by content") {
  const TemporaryFolder folder;
  const fs::path file = folder.path / "model.safetensors";
  const std::vector<std::pair<std::string, std::string>> formats{
      {"PK\x03\x04" + std::string(100, 'x'), "torch.load"},
      {"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a" + std::string(100, 'x'), "pickle"},
      {"GGUF\x03" + std::string(100, '\0'), "GGUF"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"},
      {"<!DOCTYPE html><html>", "not a safetensors file"},
      {"", "not a safetensors file"},
  };
  for (const auto& [bytes, says] : formats) {
    write(file, bytes);
    CHECK_THAT(error_of([&] { (void)read_safetensors(file); }), ContainsSubstring(says));
  }
}

}  // namespace
}  // namespace xdit::weights::test
