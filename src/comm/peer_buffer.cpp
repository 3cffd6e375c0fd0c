#include "comm/peer_buffer.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace xdit::comm {
namespace {

constexpr std::int64_t kLineBytes = 64;  // a word has a cache line: another rank writes its neighbour
constexpr std::int64_t kAlignment = 256;

bool relays(const PeerMemory& memory, std::size_t size) {
  return memory.relays() && size > 1;
}

std::int64_t lines_bytes(std::size_t size, std::int64_t lines) {
  return lines * kLineBytes * static_cast<std::int64_t>(size);
}

constexpr std::int64_t kLabels = Label::kAhead * Label::kMost;  // of each sender

}  // namespace

std::int64_t PeerBuffer::header_bytes(const PeerMemory& memory, std::size_t size) {
  const std::int64_t list = kLabels * static_cast<std::int64_t>(sizeof(Extent));
  const std::int64_t bytes =
      lines_bytes(size, kLines) + (relays(memory, size) ? list * static_cast<std::int64_t>(size) : 0);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

PeerBuffer::PeerBuffer(std::shared_ptr<PeerMemory> memory, int rank, std::vector<int> members,
                       std::vector<std::int64_t> bytes, std::vector<std::unique_ptr<Block>> blocks)
    : memory_(std::move(memory)),
      rank_(rank),
      members_(std::move(members)),
      bytes_(std::move(bytes)),
      blocks_(std::move(blocks)),
      relays_(relays(*memory_, members_.size())),
      header_(header_bytes(*memory_, members_.size())),
      ahead_(members_.size()) {}

std::byte* PeerBuffer::part(int peer) const noexcept {
  return peer == rank_ ? blocks_[peer]->local() + header_ : shared_part(peer);
}

std::byte* PeerBuffer::shared_part(int peer) const noexcept {
  return blocks_[peer]->data() + header_;
}

std::uint64_t* PeerBuffer::word(int owner, Line line, int peer) const {
  std::byte* const lines = line >= Line::kFullRaised ? blocks_[owner]->local() : blocks_[owner]->data();
  return reinterpret_cast<std::uint64_t*>(
      lines + lines_bytes(members_.size(), static_cast<std::int64_t>(line)) + peer * kLineBytes);
}

Extent* PeerBuffer::labels(int owner, int sender) const {
  return reinterpret_cast<Extent*>(blocks_[owner]->data() + lines_bytes(members_.size(), kLines)) +
         sender * kLabels;
}

void PeerBuffer::raise(const Peers& peers, Line line, Line count, Stream stream) {
  std::vector<Flag> flags;
  flags.reserve(peers.size());
  for (const int peer : peers) {
    flags.push_back({word(peer, line, rank_), word(rank_, count, peer), members_[peer]});
  }
  memory_->raise(flags, stream);
}

void PeerBuffer::await(const Peers& peers, Line line, Line count, Stream stream, const char* operation) {
  std::vector<Flag> flags;
  flags.reserve(peers.size());
  for (const int peer : peers) {
    flags.push_back({word(rank_, line, peer), word(rank_, count, peer), members_[peer]});
  }
  memory_->await(flags, operation, stream);
}

void PeerBuffer::post(const Peers& from, Stream stream) {
  for (const int peer : from) {
    ++ahead_[peer];
    XDIT_ASSERT(!relays_ || ahead_[peer] <= Label::kAhead);
  }
  raise(from, Line::kFree, Line::kFreeRaised, stream);
}

std::vector<Copy> PeerBuffer::copies_of(std::span<const Put> puts, const Peers& to) const {
  std::vector<Copy> copies;
  copies.reserve(puts.size());
  for (const Put& put : puts) {
    if (put.rows == 0 || put.row_bytes == 0) continue;
    XDIT_ASSERT(std::ranges::find(to, put.peer) != to.end());
    XDIT_ASSERT(put.offset >= 0 && put.rows > 0 && (put.rows == 1 || put.stride >= put.row_bytes) &&
                put.offset + (put.rows - 1) * put.stride + put.row_bytes <= bytes_[put.peer]);
    const auto* const source = static_cast<const std::byte*>(put.source);
    std::byte* const target = part(put.peer) + put.offset;
    if (source == target && (put.rows == 1 || put.source_stride == put.stride)) continue;
    copies.push_back({source, target, put.rows, put.row_bytes, put.source_stride, put.stride});
    if (put.peer != rank_) memory_->use().send(put.rows * put.row_bytes);
  }
  return copies;
}

void PeerBuffer::put(std::span<const Put> puts, const Peers& to, Stream stream, const char* operation) {
  const std::vector<Copy> copies = copies_of(puts, to);
  ready(to, stream, operation);
  memory_->copy(copies, stream);
  sent(puts, to, stream);
}

void PeerBuffer::ready(const Peers& to, Stream stream, const char* operation) {
  await(to, Line::kFree, Line::kFreeSeen, stream, operation);
}

void PeerBuffer::send(std::span<const Put> puts, const Peers& to, Stream stream) {
  memory_->copy_beside(copies_of(puts, to), stream);
}

void PeerBuffer::place(std::span<const Put> puts, Stream stream) {
  memory_->copy(copies_of(puts, {rank_}), stream);
}

void PeerBuffer::sent(std::span<const Put> puts, const Peers& to, Stream stream) {
  if (relays_) label(puts, to, stream);
  raise(to, Line::kFull, Line::kFullRaised, stream);
}

void PeerBuffer::arrive(const Peers& from, Stream stream, const char* operation) {
  for (const int peer : from) --ahead_[peer];
  await(from, Line::kFull, Line::kFullSeen, stream, operation);
  if (relays_) land(from, stream);
}

void PeerBuffer::label(std::span<const Put> puts, const Peers& to, Stream stream) {
  std::vector<Label> labels_of_all;
  for (const int peer : to) {
    if (peer == rank_ || bytes_[peer] == 0) continue;
    std::vector<Extent> extents = extents_of(puts, peer);
    XDIT_ASSERT(static_cast<std::int64_t>(extents.size()) <= Label::kMost);
    if (static_cast<std::int64_t>(extents.size()) < Label::kMost) extents.push_back({});
    for (std::size_t i = 0; i < extents.size(); ++i)
      labels_of_all.push_back({labels(peer, rank_), word(rank_, Line::kFullRaised, peer),
                               static_cast<std::int64_t>(i), extents[i]});
  }
  memory_->label(labels_of_all, stream);
}

void PeerBuffer::land(const Peers& from, Stream stream) {
  std::vector<Landing> landings;
  for (const int peer : from)
    if (peer != rank_ && bytes_[rank_] > 0)
      landings.push_back({labels(rank_, peer), word(rank_, Line::kFullSeen, peer), shared_part(rank_),
                          part(rank_), bytes_[rank_]});
  memory_->land(landings, stream);
}

const std::byte* PeerBuffer::read(int rank, Range bytes) const {
  XDIT_ASSERT(bytes.first >= 0 && bytes.end() <= bytes_[rank]);
  if (rank != rank_) memory_->use().send(bytes.count);
  return part(rank) + bytes.first;
}

void PeerBuffer::publish(Stream stream) {
  const Copy all{part(rank_), shared_part(rank_), 1, bytes_[rank_], 0, 0};
  if (all.from != all.to && all.row_bytes > 0) memory_->copy({&all, 1}, stream);
}

}  // namespace xdit::comm
