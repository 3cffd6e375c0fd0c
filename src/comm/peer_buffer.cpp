#include "comm/peer_buffer.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace xdit::comm {
namespace {

constexpr std::int64_t kLineBytes = 64;  // a word has a cache line: another rank writes its neighbour
constexpr std::int64_t kAlignment = 256;

}  // namespace

std::int64_t PeerBuffer::header_bytes(std::size_t size) {
  const std::int64_t bytes = kLines * kLineBytes * static_cast<std::int64_t>(size);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

PeerBuffer::PeerBuffer(std::shared_ptr<PeerMemory> memory, int rank, std::vector<int> members,
                       std::vector<std::int64_t> bytes, std::vector<std::unique_ptr<Block>> blocks)
    : memory_(std::move(memory)),
      rank_(rank),
      members_(std::move(members)),
      bytes_(std::move(bytes)),
      blocks_(std::move(blocks)) {}

std::byte* PeerBuffer::part(int peer) const noexcept {
  return blocks_[peer]->data() + header_bytes(members_.size());
}

std::uint64_t* PeerBuffer::word(int owner, Line line, int peer) const {
  const auto index = static_cast<std::int64_t>(line) * static_cast<std::int64_t>(members_.size()) + peer;
  return reinterpret_cast<std::uint64_t*>(blocks_[owner]->data() + index * kLineBytes);
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
  raise(from, Line::kFree, Line::kFreeRaised, stream);
}

void PeerBuffer::put(std::span<const Put> puts, const Peers& to, Stream stream, const char* operation) {
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
  }
  await(to, Line::kFree, Line::kFreeSeen, stream, operation);
  memory_->copy(copies, stream);
  raise(to, Line::kFull, Line::kFullRaised, stream);
}

void PeerBuffer::arrive(const Peers& from, Stream stream, const char* operation) {
  await(from, Line::kFull, Line::kFullSeen, stream, operation);
}

}  // namespace xdit::comm
