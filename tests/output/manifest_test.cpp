#include "output/manifest.h"

#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "tests/catch.h"
#include "tests/scratch.h"

namespace xdit::output {
namespace {

const Manifest::Begin kBegin{.seed = 1, .date = "2026-11-25"};

// Files of this process end at so many bytes.
class SizeLimit {
 public:
  explicit SizeLimit(rlim_t bytes) {
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before_) == 0);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  SizeLimit(const SizeLimit&) = delete;
  SizeLimit& operator=(const SizeLimit&) = delete;
  ~SizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, signal_);
  }

 private:
  rlimit before_{};
  void (*signal_)(int) = std::signal(SIGXFSZ, SIG_IGN);
};

}  // namespace

TEST_CASE("a line that found no room does not join the next one") {
  const tests::Scratch scratch;
  const std::filesystem::path path = scratch.path() / "new" / "batch.jsonl";
  const Manifest::Entry entry{.line = "p:1", .path = "1.png", .record = {.prompt = "a fox"}, .grid = "1"};
  {
    Manifest manifest(path, kBegin, /*resume=*/false, /*overwrite=*/false);
    CHECK(!std::filesystem::exists(path.parent_path()));
    manifest.start();
    {
      const SizeLimit limit(std::filesystem::file_size(path) + 10);
      CHECK_THROWS_AS(manifest.done(entry), Error);
    }
    CHECK(std::filesystem::file_size(path) > 10);
    manifest.done(entry);
  }
  const Manifest again(path, kBegin, /*resume=*/true, /*overwrite=*/false);
  CHECK(again.resumed());
  CHECK(again.has(entry.path, entry.record));
}

TEST_CASE("a picture that was begun where nothing was is known again, until something else is made there") {
  const tests::Scratch scratch;
  const std::filesystem::path path = scratch.path() / "batch.jsonl";
  Manifest::Entry fox{
      .line = "p:1", .path = scratch.path() / "1.png", .record = {.prompt = "a fox"}, .grid = "1"};
  Manifest::Entry owl = fox;
  owl.record.prompt = "an owl";
  const auto goes_on = [&] { return Manifest(path, kBegin, /*resume=*/true, /*overwrite=*/false); };
  {
    Manifest manifest(path, kBegin, /*resume=*/false, /*overwrite=*/false);
    manifest.start();
    manifest.begin({fox});
  }
  CHECK(goes_on().begun(fox.path, fox.record));
  CHECK_FALSE(goes_on().begun(fox.path, owl.record));
  CHECK_FALSE(goes_on().has(fox.path, fox.record));
  std::ofstream(fox.path) << "made, not recorded";
  goes_on().begin({owl});  // in its place
  CHECK_FALSE(goes_on().begun(fox.path, fox.record));
  CHECK_FALSE(goes_on().begun(fox.path, owl.record));  // which of both is there?
  std::filesystem::remove(fox.path);
  goes_on().begin({owl});
  CHECK(goes_on().begun(fox.path, owl.record));
  goes_on().done(fox);
  CHECK(goes_on().has(fox.path, fox.record));
  CHECK_FALSE(goes_on().begun(fox.path, owl.record));
}

TEST_CASE("what is no manifest stays as it is") {
  const tests::Scratch scratch;
  const std::filesystem::path path = scratch.path() / "batch.jsonl";
  const std::string prompts = "{\"prompt\": \"a fox\"}\n";
  std::ofstream(path) << prompts;
  for (const bool resume : {false, true})
    for (const bool overwrite : {false, true})
      CHECK_THROWS_AS(Manifest(path, kBegin, resume, overwrite), Error);
  CHECK(read_file(path, ExitCode::kUsage) == prompts);
}

}  // namespace xdit::output
