#include "weights/reader.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <tuple>

#include "core/error.h"
#include "core/file.h"

namespace xdit::weights {
namespace fs = std::filesystem;
namespace {

class HostDestination final : public Destination {
 public:
  std::byte* stage(std::byte* to, std::size_t /*bytes*/) override { return to; }
  void commit(std::byte* /*to*/, std::size_t /*bytes*/) override {}
  void finish() override {}
};

/// Reads of at most kChunkBytes in the order of the files' bytes.
std::vector<Read> chunks_of(std::span<const Read> reads) {
  std::vector<Read> chunks;
  for (Read read : reads) {
    while (read.bytes > 0) {
      Read chunk = read;
      chunk.bytes = std::min<std::uint64_t>(read.bytes, kChunkBytes);
      chunks.push_back(chunk);
      read.offset += chunk.bytes;
      read.bytes -= chunk.bytes;
      read.to += chunk.bytes;
    }
  }
  std::sort(chunks.begin(), chunks.end(), [](const Read& a, const Read& b) {
    return std::tie(a.file, a.offset) < std::tie(b.file, b.offset);
  });
  return chunks;
}

/// Neighbours in the file that are neighbours in memory, up to kChunkBytes: where each group of chunks
/// begins.
std::vector<std::size_t> groups_of(std::span<const Read> chunks) {
  std::vector<std::size_t> begins;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const bool joins =
        i > 0 && chunks[i].file == chunks[i - 1].file && chunks[i].memory == chunks[i - 1].memory &&
        chunks[i].to == chunks[i - 1].to + chunks[i - 1].bytes && bytes + chunks[i].bytes <= kChunkBytes;
    if (!joins) {
      begins.push_back(i);
      bytes = 0;
    }
    bytes += chunks[i].bytes;
  }
  begins.push_back(chunks.size());
  return begins;
}

class Reader {
 public:
  Reader(std::span<const fs::path> paths, std::span<const Read> reads)
      : paths_(paths), chunks_(chunks_of(reads)), groups_(groups_of(chunks_)) {
    for (const fs::path& path : paths) {
      files_.push_back(File::open_read(path, ExitCode::kModel));
      ::posix_fadvise(files_.back().descriptor(), 0, 0, POSIX_FADV_SEQUENTIAL);
    }
  }

  void run(std::span<const std::unique_ptr<Destination>> destinations) {
    {
      std::vector<std::jthread> threads;
      for (const auto& destination : destinations) threads.emplace_back([&] { run_one(*destination); });
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  /// Groups are handed out in order, so that all threads together read a file from its start to its end.
  void run_one(Destination& destination) noexcept {
    try {
      for (std::size_t i = next_++; i + 1 < groups_.size() && !stop_; i = next_++) {
        const std::span<const Read> group(&chunks_[groups_[i]], groups_[i + 1] - groups_[i]);
        std::byte* const to = group.front().to;
        const auto bytes = static_cast<std::size_t>(group.back().to - to) + group.back().bytes;
        std::byte* const staged = destination.stage(to, bytes);
        for (const Read& chunk : group) read(chunk, staged + (chunk.to - to));
        destination.commit(to, bytes);
      }
      if (!stop_) destination.finish();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stop_ = true;
    }
  }

  void read(const Read& chunk, std::byte* to) const {
    const File& file = files_.at(static_cast<std::size_t>(chunk.file));
    const std::size_t got = file.read_at(std::span(to, chunk.bytes), chunk.offset);
    if (got == chunk.bytes) return;
    throw Error(ExitCode::kModel,
                fmt::format("the file ends at byte {}, expected {} at least: it is truncated",
                            chunk.offset + got, chunk.offset + chunk.bytes),
                paths_[static_cast<std::size_t>(chunk.file)].string(), "download it again");
  }

  std::span<const fs::path> paths_;
  std::vector<Read> chunks_;
  std::vector<std::size_t> groups_;
  std::vector<File> files_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

std::unique_ptr<Destination> host_destination() {
  return std::make_unique<HostDestination>();
}

void read_all(std::span<const fs::path> files, std::span<const Read> reads,
              std::span<const std::unique_ptr<Destination>> threads) {
  XDIT_ASSERT(!threads.empty());
  Reader(files, reads).run(threads);
}

}  // namespace xdit::weights
