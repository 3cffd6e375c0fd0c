#include "weights/reader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <iterator>
#include <numeric>
#include <random>
#include <thread>

#include "tests/catch.h"
#include "tests/weights/support.h"

namespace xdit::weights::test {
namespace {

std::string random_bytes(std::size_t size, unsigned seed) {
  std::mt19937_64 generator(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(generator());
  return bytes;
}

std::vector<std::unique_ptr<Destination>> host_threads(std::size_t count) {
  std::vector<std::unique_ptr<Destination>> threads;
  for (std::size_t i = 0; i < count; ++i) threads.push_back(host_destination());
  return threads;
}

std::byte* bytes_in(std::string& text) {
  return reinterpret_cast<std::byte*>(text.data());
}

/// Two files, one larger than two chunks, cut into reads of many sizes that scatter them over `to`.
struct Scattered {
  TemporaryFolder folder;
  std::vector<fs::path> files{folder.path / "0", folder.path / "1"};
  std::string expected;
  std::string to;
  std::vector<Read> reads;

  Scattered() {
    const std::vector<std::string> contents{random_bytes(2 * kChunkBytes + 12345, 1),
                                            random_bytes(100'003, 2)};
    expected = contents[0] + contents[1];
    to.assign(expected.size(), '\0');
    std::uint64_t base = 0;
    for (std::int32_t file = 0; file < 2; ++file) {
      const std::string& content = contents[static_cast<std::size_t>(file)];
      write(files[static_cast<std::size_t>(file)], content);
      const std::vector<std::uint64_t> sizes{1, 4096, 0, 7, 99'999, 3, content.size()};
      std::uint64_t offset = 0;
      for (const std::uint64_t size : sizes) {
        const std::uint64_t bytes = std::min<std::uint64_t>(size, content.size() - offset);
        reads.push_back({file, offset, bytes, bytes_in(to) + base + offset});
        offset += bytes;
      }
      base += content.size();
    }
    std::shuffle(reads.begin(), reads.end(), std::mt19937(3));
  }
};

TEST_CASE("every byte arrives where it belongs, with any number of threads") {
  for (const std::size_t threads : {1, 2, 16}) {
    Scattered s;
    read_all(s.files, s.reads, host_threads(threads));
    CHECK((s.to == s.expected));
  }
}

/// What a device does: a thread's own buffer, copied on commit. Notes whether the contract holds.
struct Bounce final : Destination {
  std::vector<std::byte> buffer = std::vector<std::byte>(kChunkBytes);
  std::byte* staged = nullptr;
  std::thread::id thread;
  bool finished = false;
  bool contract = true;

  std::byte* stage(std::byte* to, std::size_t bytes) override {
    if (staged == nullptr && thread == std::thread::id()) thread = std::this_thread::get_id();
    contract =
        contract && bytes > 0 && bytes <= kChunkBytes && thread == std::this_thread::get_id() && !finished;
    staged = to;
    return buffer.data();
  }
  void commit(std::byte* to, std::size_t bytes) override {
    contract = contract && to == staged;
    std::memcpy(to, buffer.data(), bytes);
  }
  void finish() override { finished = true; }
};

TEST_CASE("a destination may stage: one thread each, a chunk at a time, finished at the end") {
  Scattered s;
  std::vector<std::unique_ptr<Destination>> threads;
  std::generate_n(std::back_inserter(threads), 3, std::make_unique<Bounce>);
  read_all(s.files, s.reads, threads);
  CHECK((s.to == s.expected));
  for (const auto& thread : threads) {
    const auto& bounce = static_cast<const Bounce&>(*thread);
    CHECK(bounce.contract);
    CHECK(bounce.finished);
  }
}

struct Failing final : Destination {
  explicit Failing(std::atomic<bool>& flag) : failed(flag) {}
  std::atomic<bool>& failed;
  std::byte* stage(std::byte* /*to*/, std::size_t /*bytes*/) override {
    failed = true;
    failed.notify_all();
    throw Error(ExitCode::kMemory, "no memory left");
  }
  void commit(std::byte* /*to*/, std::size_t /*bytes*/) override {}
  void finish() override {}
};

/// Goes on when another thread has failed.
struct Waiting final : Destination {
  explicit Waiting(std::atomic<bool>& flag) : failed(flag) {}
  std::atomic<bool>& failed;
  int commits = 0;
  std::byte* stage(std::byte* to, std::size_t /*bytes*/) override {
    failed.wait(false);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return to;
  }
  void commit(std::byte* /*to*/, std::size_t /*bytes*/) override { ++commits; }
  void finish() override { commits = -1; }
};

TEST_CASE("an error of one thread ends all and is thrown") {
  const Scattered s;
  const std::vector<Read> reads(20'000, s.reads.front());
  std::atomic<bool> failed{false};
  std::vector<std::unique_ptr<Destination>> threads;
  threads.push_back(std::make_unique<Waiting>(failed));
  threads.push_back(std::make_unique<Failing>(failed));
  threads.push_back(std::make_unique<Waiting>(failed));
  try {
    read_all(s.files, reads, threads);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kMemory);
  }
  for (const std::size_t i : {0, 2}) {
    const int commits = static_cast<const Waiting&>(*threads[i]).commits;
    CHECK(commits >= 0);  // not finished
    CHECK(commits < 1000);
  }
}

TEST_CASE("a file that ends early is an error that names it") {
  Scattered s;
  fs::resize_file(s.files[0], kChunkBytes + 5);
  const std::string error = error_of([&] { read_all(s.files, s.reads, host_threads(4)); });
  CHECK_THAT(error, ContainsSubstring(s.files[0].string()));
  CHECK_THAT(error, ContainsSubstring("truncated"));
  CHECK_THAT(error_of([&] { read_all(std::vector{s.folder.path / "none"}, {}, host_threads(1)); }),
             ContainsSubstring("cannot open"));
}

TEST_CASE("a file that shrinks while it is read is an error, never a signal") {
  Scattered s;
  struct Shrinking final : Destination {
    explicit Shrinking(fs::path path) : file(std::move(path)) {}
    fs::path file;
    std::byte* stage(std::byte* to, std::size_t /*bytes*/) override { return to; }
    void commit(std::byte* /*to*/, std::size_t /*bytes*/) override { fs::resize_file(file, 10); }
    void finish() override {}
  };
  std::vector<std::unique_ptr<Destination>> threads;
  threads.push_back(std::make_unique<Shrinking>(s.files[0]));
  CHECK_THAT(error_of([&] { read_all(s.files, s.reads, threads); }), ContainsSubstring("truncated"));
}

TEST_CASE("nothing to read is done at once") {
  const std::vector<fs::path> none;
  CHECK_NOTHROW(read_all(none, {}, host_threads(2)));
}

}  // namespace
}  // namespace xdit::weights::test
