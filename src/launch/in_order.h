#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

namespace xdit::launch {

/// Tells of pictures in the order that they are expected in, each as soon as all before it are settled.
class InOrder {
 public:
  explicit InOrder(std::function<void(std::int64_t index)> tell, std::vector<std::int64_t> order = {})
      : tell_(std::move(tell)), order_(std::move(order)) {}

  void expect(std::vector<std::int64_t> order) { order_ = std::move(order); }
  /// The picture is there, or never will be.
  void settle(std::int64_t index, bool there);
  /// Nothing more comes: tells of what is there behind a picture that is not.
  void end();

  [[nodiscard]] bool settled(std::int64_t index) const { return settled_.contains(index); }
  [[nodiscard]] std::size_t expected() const { return order_.size(); }

 private:
  void tell_next(bool wait);

  std::function<void(std::int64_t)> tell_;
  std::vector<std::int64_t> order_;
  std::size_t next_ = 0;
  std::map<std::int64_t, bool> settled_{};  // whether it is there
};

}  // namespace xdit::launch
