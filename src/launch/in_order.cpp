#include "launch/in_order.h"

namespace xdit::launch {

void InOrder::settle(std::int64_t index, bool there) {
  settled_[index] = there;
  tell_next(/*wait=*/true);
}

void InOrder::end() {
  tell_next(/*wait=*/false);
}

void InOrder::tell_next(bool wait) {
  for (; next_ < order_.size(); ++next_) {
    const auto found = settled_.find(order_[next_]);
    if (found == settled_.end() && wait) return;
    if (found != settled_.end() && found->second) tell_(found->first);
  }
}

}  // namespace xdit::launch
