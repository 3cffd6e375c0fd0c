#include "text/tokenizer/prefix_trie.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"

namespace xdit::text {

PrefixTrie::PrefixTrie(std::vector<Entry> entries) {
  std::ranges::stable_sort(entries, {}, &Entry::key);
  struct Work {  // the entries below a node: all have its `depth` bytes in common
    std::size_t begin, end, depth;
  };
  std::vector<Work> level{{0, entries.size(), 0}};
  nodes_.emplace_back();
  for (std::size_t first_node = 0; !level.empty();) {
    std::vector<Work> next;
    const std::size_t next_node = nodes_.size();
    for (std::size_t i = 0; i < level.size(); ++i) {
      auto [begin, end, depth] = level[i];
      const std::size_t node = first_node + i;
      for (; begin < end && entries[begin].key.size() == depth; ++begin)
        nodes_[node].value = entries[begin].value;
      nodes_[node].first_child = static_cast<std::uint32_t>(nodes_.size());
      while (begin < end) {
        const char label = entries[begin].key[depth];
        const auto same = [&, at = depth](const Entry& entry) { return entry.key[at] == label; };
        const auto from = entries.begin() + static_cast<std::ptrdiff_t>(begin);
        const auto stop = std::find_if_not(from, entries.begin() + static_cast<std::ptrdiff_t>(end), same);
        const auto after = static_cast<std::size_t>(stop - entries.begin());
        nodes_.push_back({.label = static_cast<unsigned char>(label)});
        ++nodes_[node].children;
        next.push_back({begin, after, depth + 1});
        begin = after;
      }
    }
    XDIT_ASSERT(nodes_.size() < std::numeric_limits<std::uint32_t>::max());
    first_node = next_node;
    level = std::move(next);
  }
}

std::uint32_t PrefixTrie::child(std::uint32_t node, unsigned char label) const {
  const auto children = std::span(nodes_).subspan(nodes_[node].first_child, nodes_[node].children);
  const auto at = std::ranges::lower_bound(children, label, {}, &Node::label);
  return at != children.end() && at->label == label ? static_cast<std::uint32_t>(&*at - nodes_.data()) : 0;
}

}  // namespace xdit::text
