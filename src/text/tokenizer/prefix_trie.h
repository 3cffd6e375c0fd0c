#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace xdit::text {

/// Finds the keys that begin a text. 12 bytes a node, at most one node a byte of the keys.
class PrefixTrie {
 public:
  struct Entry {
    std::string_view key;  ///< not empty; needed by the constructor only
    std::int32_t value;    ///< >= 0
  };
  PrefixTrie() : PrefixTrie(std::vector<Entry>{}) {}
  /// Of equal keys the last counts.
  explicit PrefixTrie(std::vector<Entry> entries);

  /// Calls found(length, value) for each key that `text` begins with, shortest first.
  template <typename Found>
  void for_each_prefix(std::string_view text, Found&& found) const {
    std::uint32_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == 0) return;
      if (nodes_[node].value >= 0) found(i + 1, nodes_[node].value);
    }
  }

 private:
  struct Node {
    std::uint32_t first_child = 0;
    std::int32_t value = -1;
    std::uint16_t children = 0;
    unsigned char label = 0;
  };
  [[nodiscard]] std::uint32_t child(std::uint32_t node, unsigned char label) const;  // 0: none

  std::vector<Node> nodes_;  // breadth first; the children of a node are neighbours, by label
};

}  // namespace xdit::text
