#include "comm/relayed_memory.h"

#include <cstring>
#include <utility>
#include <vector>

namespace xdit::comm {
namespace {

class RelayedBlock final : public Block {
 public:
  RelayedBlock(std::unique_ptr<Block> shared, std::unique_ptr<Block> local)
      : shared_(std::move(shared)), local_(std::move(local)) {}
  [[nodiscard]] std::byte* data() const noexcept override { return shared_->data(); }
  [[nodiscard]] std::byte* local() const noexcept override { return local_->data(); }
  void opened() override { shared_->opened(); }

 private:
  std::unique_ptr<Block> shared_;
  std::unique_ptr<Block> local_;
};

}  // namespace

std::unique_ptr<Block> RelayedMemory::create(std::int64_t bytes, Handle* handle) {
  std::unique_ptr<Block> block = HostMemory::create(bytes, handle);
  if (handle == nullptr) return block;
  return std::make_unique<RelayedBlock>(std::move(block), HostMemory::create(bytes, nullptr));
}

void RelayedMemory::label(std::span<const Label> labels, Stream /*stream*/) {
  for (const Label& label : labels) {
    const auto transfer = static_cast<std::int64_t>(*label.count) % Label::kAhead;
    label.list[transfer * Label::kMost + label.index] = label.extent;
  }
}

void RelayedMemory::land(std::span<const Landing> landings, Stream stream) {
  std::vector<Copy> copies;
  for (const Landing& landing : landings) {
    const auto transfer = static_cast<std::int64_t>(*landing.count - 1) % Label::kAhead;
    for (std::int64_t i = 0; i < Label::kMost; ++i) {
      const Extent& extent = landing.list[transfer * Label::kMost + i];
      if (extent.rows == 0) break;
      copies.push_back({landing.from + extent.offset, landing.to + extent.offset, extent.rows,
                        extent.row_bytes, extent.stride, extent.stride});
    }
  }
  copy(copies, stream);
}

}  // namespace xdit::comm
