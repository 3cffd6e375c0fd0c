#include "parallel/row_exchange.h"

#include <array>

namespace xdit::parallel {

const char* name_of(RowKind kind) {
  constexpr std::array<const char*, kRowKinds> kNames{"halo", "moments", "keys and values", "picture"};
  return kNames.at(static_cast<std::size_t>(kind));
}

FreshRows::FreshRows(comm::Group& group, bool takes_part, const SlabBytes& bytes) {
  for (std::int64_t kind = 0; kind < kRowKinds; ++kind) {
    const bool gets = static_cast<RowKind>(kind) == RowKind::kPicture ? group.rank() == 0 : takes_part;
    buffers_.push_back(group.allocate(gets ? bytes.at(static_cast<std::size_t>(kind)) : 0));
  }
}

RowExchange::Arrived FreshRows::exchange(const RowTransfer& transfer, comm::Stream stream) {
  comm::PeerBuffer& buffer = buffers_.at(static_cast<std::size_t>(transfer.kind));
  const char* const name = name_of(transfer.kind);
  buffer.post(transfer.from, stream);
  buffer.put(transfer.puts, transfer.to, stream, name);
  buffer.arrive(transfer.from, stream, name);
  return {.data = buffer.data()};
}

}  // namespace xdit::parallel
