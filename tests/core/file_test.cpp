#include "core/file.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/catch.h"
#include "tests/scratch.h"

namespace fs = std::filesystem;
using xdit::Error;
using xdit::ExitCode;

namespace {

constexpr int kNoRight = 99;  // exit code of a child that may not change its mounts

Error failure(const fs::path& path, std::string_view bytes, bool overwrite = false) {
  try {
    xdit::write_file_atomically(path, bytes, overwrite);
  } catch (const Error& error) {
    return error;
  }
  FAIL("nothing was thrown for " << path);
  throw std::logic_error("not reached");
}

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

std::string contents(const fs::path& path) {
  return xdit::read_file(path, ExitCode::kOutput);
}

}  // namespace

TEST_CASE("what is written is read back, with folders made on the way", "[file]") {
  const xdit::tests::Scratch scratch;
  const fs::path path = scratch.path() / "a" / "b" / "c.bin";
  const std::string bytes(100'000, '\x7f');
  xdit::write_file_atomically(path, bytes, false);
  CHECK(contents(path) == bytes);
  const std::vector<std::string_view> parts{"one ", "", "two"};
  xdit::write_file_atomically(path, parts, true);
  CHECK(contents(path) == "one two");
  CHECK(entries(path.parent_path()) == 1);
}

TEST_CASE("an existing file is kept without overwrite", "[file]") {
  const xdit::tests::Scratch scratch;
  const fs::path path = scratch.path() / "x.png";
  xdit::write_file_atomically(path, "first", false);
  const Error error = failure(path, "second");
  CHECK(error.code() == ExitCode::kOutput);
  CHECK(error.fix().find("--overwrite") != std::string::npos);
  CHECK(contents(path) == "first");
  fs::create_symlink("nowhere", scratch.path() / "dangling");
  CHECK(failure(scratch.path() / "dangling", "x").message() == "the file exists");
  CHECK(entries(scratch.path()) == 2);
}

TEST_CASE("permissions follow umask", "[file]") {
  const xdit::tests::Scratch scratch;
  const auto mode_under = [&](mode_t mask) {
    const mode_t before = ::umask(mask);
    xdit::write_file_atomically(scratch.path() / "x", "x", true);
    ::umask(before);
    struct stat status {};
    REQUIRE(::stat((scratch.path() / "x").c_str(), &status) == 0);
    return status.st_mode & 0777U;
  };
  CHECK(mode_under(0022) == 0644);
  CHECK(mode_under(0077) == 0600);
  CHECK(mode_under(0002) == 0664);
}

TEST_CASE("a symbolic link is replaced, its target kept", "[file]") {
  const xdit::tests::Scratch scratch;
  xdit::write_file_atomically(scratch.path() / "target", "kept", false);
  fs::create_symlink("target", scratch.path() / "link");
  xdit::write_file_atomically(scratch.path() / "link", "new", true);
  CHECK(contents(scratch.path() / "target") == "kept");
  CHECK(contents(scratch.path() / "link") == "new");
  CHECK_FALSE(fs::is_symlink(scratch.path() / "link"));
}

TEST_CASE("what is no regular file is never replaced", "[file]") {
  const xdit::tests::Scratch scratch;
  REQUIRE(::mkfifo((scratch.path() / "fifo").c_str(), 0600) == 0);
  fs::create_directory(scratch.path() / "folder");
  fs::create_symlink("fifo", scratch.path() / "link");
  for (const char* name : {"fifo", "folder", "link", "new/"}) {
    CAPTURE(name);
    CHECK(failure(scratch.path() / name, "x", true).code() == ExitCode::kOutput);
  }
  CHECK(failure("", "x", true).code() == ExitCode::kOutput);
  CHECK(fs::is_fifo(scratch.path() / "fifo"));
  CHECK(fs::is_symlink(scratch.path() / "link"));
  CHECK(entries(scratch.path()) == 3);
}

TEST_CASE("names of 255 bytes fit, longer ones leave nothing", "[file]") {
  const xdit::tests::Scratch scratch;
  xdit::write_file_atomically(scratch.path() / std::string(255, 'n'), "x", false);
  CHECK(failure(scratch.path() / std::string(256, 'n'), "x").code() == ExitCode::kOutput);
  CHECK(failure(scratch.path() / std::string(256, 'n'), "x", true).code() == ExitCode::kOutput);
  CHECK(entries(scratch.path()) == 1);
}

TEST_CASE("a file stands where a folder must be", "[file]") {
  const xdit::tests::Scratch scratch;
  xdit::write_file_atomically(scratch.path() / "x", "x", false);
  CHECK(failure(scratch.path() / "x" / "y.png", "y").code() == ExitCode::kOutput);
}

TEST_CASE("a size limit gives an error and leaves nothing", "[file]") {
  const xdit::tests::Scratch scratch;
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string message;
  try {
    xdit::write_file_atomically(scratch.path() / "x", std::string(100'000, 'x'), false);
  } catch (const Error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(message, ContainsSubstring("cannot write"));
  CHECK(entries(scratch.path()) == 0);
}

TEST_CASE("a full disk and a read-only file system", "[file]") {
  const xdit::tests::Scratch scratch;
  const char* folder = scratch.path().c_str();
  if (::mount("tmpfs", folder, "tmpfs", 0, "size=64k") != 0) {
    WARN("no right to mount a tmpfs: not tested");
    return;
  }
  xdit::write_file_atomically(scratch.path() / "kept", "old", false);
  const Error full = failure(scratch.path() / "kept", std::string(1 << 20, 'x'), true);
  const std::string kept = contents(scratch.path() / "kept");
  const std::size_t left = entries(scratch.path());
  const bool remounted = ::mount("tmpfs", folder, "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  const Error read_only = failure(scratch.path() / "new", "x");
  ::umount2(folder, MNT_DETACH);
  CHECK(full.code() == ExitCode::kOutput);
  CHECK_THAT(full.what(), ContainsSubstring("No space left"));
  CHECK(kept == "old");
  CHECK(left == 1);
  CHECK(remounted);
  CHECK(read_only.code() == ExitCode::kOutput);
  CHECK_THAT(read_only.what(), ContainsSubstring("Read-only"));
}

TEST_CASE("without /proc, files have a name from the start and still leave nothing", "[file]") {
  const xdit::tests::Scratch scratch;
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", "/proc", "tmpfs", 0, nullptr) != 0)
      ::_exit(kNoRight);
    const std::string long_name(256, 'n');
    bool good = true;
    for (const bool overwrite : {false, true}) {
      xdit::write_file_atomically(scratch.path() / "x", overwrite ? "two" : "one", overwrite);
      good = good && contents(scratch.path() / "x") == (overwrite ? "two" : "one");
      good = good && failure(scratch.path() / long_name, "x", overwrite).code() == ExitCode::kOutput;
      good = good && failure(scratch.path() / "x", "three").message() == "the file exists";
    }
    ::_exit(good && entries(scratch.path()) == 1 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNoRight) {
    WARN("no right to hide /proc: not tested");
    return;
  }
  CHECK(status == 0);
}

TEST_CASE("of several writers exactly one makes the file", "[file]") {
  const xdit::tests::Scratch scratch;
  std::atomic<int> made{0};
  std::vector<std::thread> writers;
  writers.reserve(8);
  for (int i = 0; i < 8; ++i)
    writers.emplace_back([&, i] {
      try {
        xdit::write_file_atomically(scratch.path() / "x", std::string(1000, static_cast<char>('a' + i)),
                                    false);
        ++made;
      } catch (const Error&) {
      }
    });
  for (std::thread& writer : writers) writer.join();
  CHECK(made == 1);
  CHECK(entries(scratch.path()) == 1);
  const std::string bytes = contents(scratch.path() / "x");
  CHECK(bytes == std::string(1000, bytes.at(0)));
}

TEST_CASE("reading stops at the limit and names the file", "[file]") {
  const xdit::tests::Scratch scratch;
  const fs::path path = scratch.path() / "x";
  xdit::write_file_atomically(path, "0123456789", false);
  CHECK(xdit::read_file(path, ExitCode::kProfile, 10) == "0123456789");
  const auto code_of = [](const fs::path& file, std::size_t limit) {
    try {
      static_cast<void>(xdit::read_file(file, ExitCode::kProfile, limit));
    } catch (const Error& error) {
      CHECK(error.where() == file.string());
      return error.code();
    }
    return ExitCode::kOk;
  };
  CHECK(code_of(path, 9) == ExitCode::kProfile);
  CHECK(code_of(scratch.path(), 100) == ExitCode::kProfile);
  CHECK(code_of(scratch.path() / "none", 100) == ExitCode::kProfile);

  xdit::File file = xdit::File::open_read(path, ExitCode::kModel);
  const xdit::File moved = std::move(file);
  CHECK(moved.size() == 10);
  std::string part(8, ' ');
  CHECK(moved.read_at(std::as_writable_bytes(std::span(part)), 6) == 4);
  CHECK(part == "6789    ");
}
