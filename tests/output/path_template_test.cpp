#include "output/path_template.h"

#include <sys/mount.h>
#include <unistd.h>

#include <fstream>

#include "core/error.h"
#include "output/unicode.h"
#include "tests/catch.h"
#include "tests/scratch.h"

namespace fs = std::filesystem;
using xdit::Error;
using xdit::ExitCode;
using xdit::config::Picture;
using xdit::output::output_paths;
using xdit::output::sanitised;

namespace {

constexpr const char* kDate = "2024-02-29";

std::string path_of(const std::string& text,
                    const Picture& picture = {.index = 7, .prompt = "a cat", .seed = 42}) {
  return output_paths(text, std::span(&picture, 1), kDate, false).at(0).string();
}

Error failure(const std::string& text,
              std::vector<Picture> pictures = {{.index = 0, .prompt = "a cat", .seed = 42}},
              bool overwrite = false) {
  try {
    static_cast<void>(output_paths(text, pictures, kDate, overwrite));
  } catch (const Error& error) {
    return error;
  }
  FAIL("nothing was thrown for " << text);
  throw std::logic_error("not reached");
}

std::ptrdiff_t parts(const fs::path& path) {
  return std::distance(path.begin(), path.end());
}

}  // namespace

TEST_CASE("placeholders are filled", "[path]") {
  CHECK(path_of("x.png") == "x.png");
  CHECK(path_of("out/{seed}.png") == "out/42.png");
  CHECK(path_of("out/{date}/{prompt}-{index}-{seed}.PNG") == "out/2024-02-29/a cat-7-42.PNG");
  CHECK(path_of("%d.png") == "7.png");
  CHECK(path_of("%03d.png") == "007.png");
  CHECK(path_of("a%%{{x}}%09d.png") == "a%{x}000000007.png");
  CHECK(path_of("../{seed}/./b.png") == "../42/./b.png");
  CHECK(path_of("{seed}.png", {.index = 0, .prompt = {}, .seed = UINT64_MAX}) == "18446744073709551615.png");
  const fs::path absolute = fs::temp_directory_path() / "{seed}.png";
  CHECK(path_of(absolute.string()) == fs::temp_directory_path() / "42.png");
}

TEST_CASE("a bad template says what to type", "[path]") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"{sed}.png", "did you mean seed?"},
      {"{}.png", "one of: seed"},
      {"{seed.png", "{{"},
      {"seed}.png", "}}"},
      {"%s.png", "%%"},
      {"100%.png", "%%"},
      {"%3d.png", "%%"},
      {"%0d.png", "%%"},
      {"%010d.png", "%%"},
      {"out/{seed}", "out/{seed}/{seed}.png"},
      {"out", "out/{seed}.png"},
      {"out/", "out/{seed}.png"},
      {"x.jpg", "x.png"},
      {"", "{seed}.png"},
      {"{se/ed}.png", "{{"},
  };
  for (const auto& [text, fix] : cases) {
    CAPTURE(text);
    const Error error = failure(text);
    CHECK(error.code() == ExitCode::kUsage);
    CHECK_THAT(error.fix(), ContainsSubstring(fix));
  }
}

TEST_CASE("no value leaves the folder or makes a bad name", "[path]") {
  const std::vector<std::string> hostile{"../../etc/passwd",
                                         "/etc/passwd",
                                         "..",
                                         ".",
                                         "...",
                                         "",
                                         " ",
                                         "-rf",
                                         "--help",
                                         ".hidden",
                                         "a/b\\c",
                                         "a\nb\tc\r",
                                         std::string("a\0b", 3),
                                         "\x1b[31mred",
                                         "\u202etxt.exe",
                                         "\u2028x\u2029",
                                         "\ufeff.x",
                                         "\u200b..",
                                         "bad \xff\xc3",
                                         "- .- ./x",
                                         "\u0085..",
                                         "x.",
                                         "x ",
                                         std::string(1000, '.'),
                                         std::string(5000, 'y')};
  for (const std::string& prompt : hostile) {
    CAPTURE(prompt);
    const std::string name = sanitised(prompt);
    CHECK(!name.empty());
    CHECK(name.size() <= 255);
    CHECK(name.find_first_of("/\\") == std::string::npos);
    CHECK(name.find_first_of(std::string("\0\n\t\r\x1b\x7f", 6)) == std::string::npos);
    CHECK(name.find_first_of(".- ") != 0);
    CHECK(xdit::output::code_points(name));
    CHECK(sanitised(name) == name);
    for (const char* text : {"out/{prompt}/{prompt}.png", "{prompt}/x.png", "out/.{prompt}/x.png"}) {
      const fs::path path = path_of(text, {.index = 0, .prompt = prompt, .seed = 1});
      CHECK(path == path.lexically_normal());
      CHECK(parts(path) == parts(text));
      for (const fs::path& part : path) CHECK(part.string().size() <= 255);
      CHECK(path.extension() == ".png");
    }
  }
  CHECK(sanitised("a cat, \"quoted\": \u732b") == "a cat, \"quoted\": \u732b");
  CHECK(sanitised("a\n\n  b") == "a b");
  CHECK(sanitised("..") == "_");
  const Error error = failure("out/{prompt}/../../x.png");
  CHECK(error.code() == ExitCode::kOutput);
  CHECK(failure("%d/../../x.png").code() == ExitCode::kOutput);
}

TEST_CASE("long prompts are cut between characters, the rest of the name stays", "[path]") {
  std::string cats;
  for (int i = 0; i < 200; ++i) cats += "\u732b";
  for (const char* text :
       {"{prompt}.png", "{prompt}-{seed}.png", "a{prompt}.png", "ab{prompt}.png", "{prompt}{prompt}.png"}) {
    CAPTURE(text);
    const std::string name = path_of(text, {.index = 0, .prompt = cats, .seed = 12345});
    CHECK(name.size() <= 255);
    CHECK(name.size() > 245);
    CHECK(xdit::output::code_points(name));
    CHECK_THAT(name, ContainsSubstring(".png"));
  }
  CHECK(failure(std::string(252, 'n') + ".png").code() == ExitCode::kOutput);
  CHECK(failure(std::string(251, 'n') + "{prompt}.png").code() == ExitCode::kOutput);
  CHECK(path_of(std::string(251, 'n') + ".png").size() == 255);
}

TEST_CASE("two pictures never share a path", "[path]") {
  const std::vector<Picture> seeds{{.index = 0, .prompt = "a", .seed = 1},
                                   {.index = 1, .prompt = "a", .seed = 2}};
  const std::vector<Picture> prompts{{.index = 0, .prompt = "a", .seed = 1},
                                     {.index = 1, .prompt = "b", .seed = 1}};
  const Error by_seed = failure("out/x.png", seeds);
  CHECK(by_seed.code() == ExitCode::kUsage);
  CHECK(by_seed.fix() == "-o 'out/x-{seed}.png'");
  CHECK_THAT(by_seed.message(), ContainsSubstring("pictures 0 and 1"));
  const Error by_index = failure("out/{seed}.png", prompts);
  CHECK(by_index.fix() == "-o 'out/{seed}-{index}.png'");
  CHECK_NOTHROW(output_paths("out/{seed}-{index}.png", prompts, kDate, false));
  CHECK_NOTHROW(output_paths("{prompt}.png", prompts, kDate, false));
}

TEST_CASE("existing files are found before any work", "[path]") {
  const xdit::tests::Scratch scratch;
  const std::string text = (scratch.path() / "{seed}.png").string();
  const std::vector<Picture> pictures{{.index = 0, .prompt = "a", .seed = 1},
                                      {.index = 1, .prompt = "a", .seed = 2},
                                      {.index = 2, .prompt = "a", .seed = 3}};
  CHECK_NOTHROW(output_paths(text, pictures, kDate, false));
  std::ofstream(scratch.path() / "2.png") << "x";
  Error error = failure(text, pictures);
  CHECK(error.code() == ExitCode::kOutput);
  CHECK(error.where() == scratch.path() / "2.png");
  CHECK_THAT(error.fix(), ContainsSubstring("--overwrite"));
  CHECK_NOTHROW(output_paths(text, pictures, kDate, true));
  fs::create_symlink("nowhere", scratch.path() / "3.png");
  CHECK_THAT(failure(text, pictures).message(), ContainsSubstring("1 more of 3"));
}

TEST_CASE("a folder that cannot be written to is found before any work", "[path]") {
  const xdit::tests::Scratch scratch;
  std::ofstream(scratch.path() / "file") << "x";
  for (const char* name : {"file/x.png", "file/a/b/x.png"}) {
    const Error error = failure((scratch.path() / name).string());
    CHECK(error.code() == ExitCode::kOutput);
    CHECK(error.where() == scratch.path() / "file");
  }
  fs::create_directory(scratch.path() / "closed");
  if (::geteuid() == 0) {
    if (::mount("tmpfs", (scratch.path() / "closed").c_str(), "tmpfs", MS_RDONLY, nullptr) != 0) {
      WARN("no right to mount a tmpfs: not tested");
      return;
    }
    const Error error = failure((scratch.path() / "closed" / "new" / "x.png").string());
    ::umount2((scratch.path() / "closed").c_str(), MNT_DETACH);
    CHECK(error.code() == ExitCode::kOutput);
    CHECK_THAT(error.message(), ContainsSubstring("Read-only"));
  } else {
    fs::permissions(scratch.path() / "closed", fs::perms::owner_read | fs::perms::owner_exec);
    CHECK(failure((scratch.path() / "closed" / "x.png").string()).code() == ExitCode::kOutput);
  }
}

TEST_CASE("the date is local", "[path]") {
  ::setenv("TZ", "UTC-14", 1);
  ::tzset();
  CHECK(xdit::output::local_date(0) == "1970-01-01");
  CHECK(xdit::output::local_date(36'000) == "1970-01-02");
  ::unsetenv("TZ");
  ::tzset();
}
