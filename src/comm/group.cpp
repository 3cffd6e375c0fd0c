#include "comm/group.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "comm/host_memory.h"
#include "core/error.h"

namespace xdit::comm {
namespace {

struct Offer {
  Handle handle;
  std::int64_t bytes;
};
static_assert(sizeof(Offer) <= Group::kShared);

template <typename T>
std::vector<T> share_values(Group& group, const T& mine) {
  std::vector<T> result;
  for (const Group::Shared& shared : group.share(std::as_bytes(std::span(&mine, 1)))) {
    std::memcpy(&result.emplace_back(), shared.data(), sizeof(T));
  }
  return result;
}

}  // namespace

Group::Group(std::shared_ptr<PeerMemory> host, std::shared_ptr<PeerMemory> memory, PeerBuffer control)
    : host_(std::move(host)),
      memory_(std::move(memory)),
      control_(std::move(control)),
      everyone_(members().size()) {
  std::iota(everyone_.begin(), everyone_.end(), 0);
}

Group Group::world(const std::shared_ptr<const Job>& job, int rank, std::chrono::nanoseconds timeout,
                   std::shared_ptr<PeerMemory> memory) {
  const auto host = std::make_shared<HostMemory>(job, rank, timeout);
  const auto size = static_cast<std::size_t>(job->size());
  const std::int64_t bytes = static_cast<std::int64_t>(size * kShared);
  std::vector<std::unique_ptr<Block>> blocks(size);
  Job::Card& mine = job->card(rank);
  const std::uint64_t before = mine.ready;
  std::uint64_t ready = before;
  blocks[rank] = host->create(PeerBuffer::header_bytes(*host, size) + bytes, &mine.handle);
  const Flag here{&mine.ready, &ready, rank};
  host->raise({&here, 1}, nullptr);

  std::vector<int> members(size);
  std::iota(members.begin(), members.end(), 0);
  for (const int peer : members) {
    if (peer == rank) continue;
    std::uint64_t seen = before;
    const Flag there{&job->card(peer).ready, &seen, peer};
    host->await({&there, 1}, "rendezvous", nullptr);
    blocks[peer] = host->open(job->card(peer).handle, peer);
  }
  if (!memory) memory = std::make_shared<HostMemory>(job, rank, timeout);  // apart: it counts what is put
  Group group(host, std::move(memory),
              PeerBuffer(host, rank, members, std::vector<std::int64_t>(size, bytes), std::move(blocks)));
  group.finish();
  return group;
}

void Group::finish() {
  [[maybe_unused]] const auto all_have_opened = share({});
  control_.blocks_[rank()]->opened();
  signals_ = allocate(0);
}

Group Group::split(int colour, std::shared_ptr<PeerMemory> host) {
  const std::vector<int> colours = share_values(*this, colour);
  Peers ranks;
  for (const int peer : everyone_) {
    if (colours[peer] == colour) ranks.push_back(peer);
  }
  if (!host) host = host_;
  Group group(host, memory_, connect(host, ranks, static_cast<std::int64_t>(ranks.size() * kShared)));
  group.finish();
  return group;
}

PeerBuffer Group::connect(const std::shared_ptr<PeerMemory>& memory, const Peers& ranks, std::int64_t bytes) {
  Offer mine{{}, bytes};
  std::vector<std::unique_ptr<Block>> blocks(ranks.size());
  const auto position = std::ranges::find(ranks, rank()) - ranks.begin();
  blocks[position] = memory->create(PeerBuffer::header_bytes(*memory, ranks.size()) + bytes,
                                    ranks.size() > 1 ? &mine.handle : nullptr);
  const std::vector<Offer> offers = share_values(*this, mine);
  std::vector<int> in_job;
  std::vector<std::int64_t> sizes;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    in_job.push_back(members()[ranks[i]]);
    sizes.push_back(offers[ranks[i]].bytes);
    if (blocks[i] == nullptr) blocks[i] = memory->open(offers[ranks[i]].handle, in_job.back());
  }
  return {memory, static_cast<int>(position), std::move(in_job), std::move(sizes), std::move(blocks)};
}

PeerBuffer Group::allocate(std::int64_t bytes) {
  XDIT_ASSERT(bytes >= 0);
  PeerBuffer buffer = connect(memory_, everyone_, bytes);
  [[maybe_unused]] const auto all_have_opened = share({});
  buffer.blocks_[rank()]->opened();
  return buffer;
}

void Group::exchange(PeerBuffer& buffer, std::span<const Put> puts, const Peers& from, const Peers& to,
                     Stream stream, const char* operation) {
  buffer.post(from, stream);
  buffer.put(puts, to, stream, operation);
  buffer.arrive(from, stream, operation);
}

std::vector<Group::Shared> Group::share(std::span<const std::byte> mine) {
  XDIT_ASSERT(mine.size() <= kShared);
  std::vector<Put> puts;
  for (const int peer : everyone_) {
    puts.push_back({.peer = peer,
                    .source = mine.data(),
                    .rows = 1,
                    .row_bytes = static_cast<std::int64_t>(mine.size()),
                    .offset = static_cast<std::int64_t>(kShared) * rank()});
  }
  exchange(control_, puts, everyone_, everyone_, nullptr, "share");
  std::vector<Shared> result(everyone_.size());
  std::memcpy(result.data(), control_.data(), result.size() * kShared);
  return result;
}

void Group::all_to_all_v(std::span<const Put> puts, PeerBuffer& to, Stream stream) {
  exchange(to, puts, everyone_, everyone_, stream, "all_to_all");
}

void Group::all_gather_v(const void* mine, std::span<const Range> parts, PeerBuffer& to,
                         Stream stream) const {
  const Range last = *std::ranges::max_element(parts, {}, &Range::end);
  const std::vector<Range> all(parts.size(), Range{0, last.end()});
  exchange(to, put_rows({.data = mine, .row_bytes = 1}, parts, all, rank()), sources(parts, all, rank()),
           targets(parts, all, rank()), stream, "all_gather");
}

void Group::gather_rows(const Slab& mine, std::span<const Range> owned, std::span<const Range> wanted,
                        PeerBuffer& to, Stream stream) const {
  exchange(to, put_rows(mine, owned, wanted, rank()), sources(owned, wanted, rank()),
           targets(owned, wanted, rank()), stream, "gather_rows");
}

void Group::broadcast(const void* source, std::int64_t bytes, int root, PeerBuffer& to, Stream stream) {
  std::vector<Put> puts;
  Peers receivers;
  if (rank() == root) {
    receivers = everyone_;
    for (const int peer : everyone_) {
      puts.push_back({.peer = peer, .source = source, .rows = 1, .row_bytes = bytes});
    }
  }
  exchange(to, puts, {root}, receivers, stream, "broadcast");
}

void Group::sum(const float* source, std::span<const Range> parts, PeerBuffer& staging, float* to,
                Stream stream) {
  constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
  std::vector<Put> puts;
  for (const int peer : everyone_) {
    puts.push_back({.peer = peer,
                    .source = source + parts[peer].first,
                    .rows = 1,
                    .row_bytes = parts[peer].count * kFloat,
                    .offset = rank() * parts[peer].count * kFloat});
  }
  exchange(staging, puts, everyone_, everyone_, stream, "sum");
  const std::int64_t count = parts[rank()].count;
  std::vector<const float*> terms;
  for (const int peer : everyone_) {
    terms.push_back(reinterpret_cast<const float*>(staging.data()) + peer * count);
  }
  memory_->sum(to, terms, count, stream);
}

void Group::barrier(Stream stream) {
  exchange(*signals_, {}, everyone_, everyone_, stream, "barrier");
}

}  // namespace xdit::comm
