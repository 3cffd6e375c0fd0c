#include "comm/job.h"

#include <atomic>
#include <cstddef>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include "core/error.h"

namespace xdit::comm {

struct Job::Header {
  std::uint64_t magic;
  std::int64_t size;
  alignas(64) std::int64_t aborted;  // 0, or the rank + 2
  std::int64_t left;                 // ranks
  std::int64_t renewals;
};

namespace {

constexpr std::uint64_t kMagic = 0x31626f6a74696478;  // "xditjob1"
constexpr const char* kAddressKey = "job";

std::string joined_key(int rank) {
  return "joined/" + std::to_string(rank);
}

}  // namespace

Job::Header& Job::header() const noexcept {
  return *reinterpret_cast<Header*>(memory_.data());
}

Job::Card& Job::card(int rank) const {
  XDIT_ASSERT(rank >= 0 && rank < size());
  return reinterpret_cast<Card*>(memory_.data() + sizeof(Header))[rank];
}

int Job::size() const noexcept {
  return static_cast<int>(header().size);
}

std::shared_ptr<Job> Job::create(int size) {
  XDIT_ASSERT(size >= 1);
  const std::size_t bytes = sizeof(Header) + static_cast<std::size_t>(size) * sizeof(Card);
  std::shared_ptr<Job> job(new Job(SharedMemory::create(static_cast<std::int64_t>(bytes))));
  job->header().size = size;
  job->header().magic = kMagic;
  return job;
}

std::shared_ptr<Job> Job::attach(int descriptor) {
  std::shared_ptr<Job> job(new Job(SharedMemory::attach(File(descriptor))));
  XDIT_ASSERT(job->memory_.bytes() >= static_cast<std::int64_t>(sizeof(Header)) &&
              job->header().magic == kMagic);
  return job;
}

std::shared_ptr<Job> Job::join(Store& store, int rank, int size) {
  if (rank == 0) {
    std::shared_ptr<Job> job = create(size);
    const SharedMemory::Address address = job->memory_.address();
    std::ostringstream text;
    text << address.process << ' ' << address.descriptor << ' ' << address.inode << ' ' << address.bytes;
    store.set(kAddressKey, text.str());
    for (int peer = 1; peer < size; ++peer) static_cast<void>(store.get(joined_key(peer)));
    return job;
  }
  SharedMemory::Address address{};
  std::istringstream text(store.get(kAddressKey));
  text >> address.process >> address.descriptor >> address.inode >> address.bytes;
  XDIT_ASSERT(!text.fail());
  std::shared_ptr<Job> job(new Job(SharedMemory::open(address, "rank 0")));
  XDIT_ASSERT(job->header().magic == kMagic && job->size() == size);
  store.set(joined_key(rank), "1");
  return job;
}

void Job::abort(int rank) const noexcept {
  std::int64_t none = 0;
  std::atomic_ref(header().aborted).compare_exchange_strong(none, rank + 2);
}

std::optional<int> Job::aborted() const noexcept {
  const std::int64_t word = std::atomic_ref(header().aborted).load(std::memory_order_acquire);
  if (word == 0) return std::nullopt;
  return static_cast<int>(word) - 2;
}

void Job::leave(std::chrono::nanoseconds patience) const {
  const std::atomic_ref left(header().left);
  ++left;
  const auto until = std::chrono::steady_clock::now() + patience;
  while (left < size() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void Job::renew() const noexcept {
  header().aborted = 0;
  header().left = 0;
  for (int rank = 0; rank < size(); ++rank) card(rank) = {};
  ++header().renewals;
}

std::int64_t Job::renewals() const noexcept {
  return header().renewals;
}

}  // namespace xdit::comm
