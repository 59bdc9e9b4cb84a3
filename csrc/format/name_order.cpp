#include "format/name_order.h"

#include <algorithm>
#include <numeric>

#include "format/text.h"

namespace torch_safetensors::format {
namespace {

/// Names that have their first `depth` bytes in common, by their places in the order.
struct Group {
  size_t begin;
  size_t end;
  size_t depth;
};

struct Key {
  uint64_t word;
  uint32_t index;
};

constexpr size_t kBytesOfWord = 7;

/// Groups up to this size are sorted by comparing names to their ends.
constexpr size_t kFew = 16;

/// The next seven bytes of a name, and below them how many of it are left, 8 standing for more than seven.
/// So words are equal only where the names end together or both go on.
uint64_t word_of(std::string_view rest) {
  return (sortable_prefix(rest) & ~uint64_t{0xFF}) | std::min(rest.size(), kBytesOfWord + 1);
}

bool ends_in(uint64_t word) { return (word & 0xFF) <= kBytesOfWord; }

/// Names that are sorted but for a few places, as those of a file are within each dtype: the stretches
/// between them, merged. Nothing if there are too many.
std::vector<uint32_t> merge_stretches(std::span<const std::string_view> names) {
  constexpr size_t kMost = 8;
  const auto begin = names.begin();
  std::vector<size_t> ends;
  while (ends.empty() || ends.back() < names.size()) {
    if (ends.size() == kMost) {
      return {};
    }
    const auto from = begin + static_cast<std::ptrdiff_t>(ends.empty() ? 0 : ends.back());
    ends.push_back(static_cast<size_t>(std::is_sorted_until(from, names.end()) - begin));
  }
  std::vector<uint32_t> order(names.size());
  std::iota(order.begin(), order.end(), 0);
  const auto at = [&](size_t place) { return order.begin() + static_cast<std::ptrdiff_t>(place); };
  for (size_t i = 1; i < ends.size(); ++i) {
    std::inplace_merge(order.begin(), at(ends[i - 1]), at(ends[i]),
                       [&](uint32_t a, uint32_t b) { return names[a] < names[b]; });
  }
  return order;
}

class Sorter {
 public:
  explicit Sorter(std::span<const std::string_view> names) : names_(names), keys_(names.size()) {
    for (size_t i = 0; i < keys_.size(); ++i) {
      keys_[i].index = static_cast<uint32_t>(i);
    }
  }

  std::vector<uint32_t> sort() {
    // A list of our own and not recursion: names of megabytes would take the stack.
    groups_.push_back({0, keys_.size(), 0});
    while (!groups_.empty()) {
      const Group group = groups_.back();
      groups_.pop_back();
      group.end - group.begin <= kFew ? sort_few(group) : sort_many(group);
    }
    std::vector<uint32_t> order;
    order.reserve(keys_.size());
    for (const Key& key : keys_) {
      order.push_back(key.index);
    }
    return order;
  }

 private:
  std::string_view rest(const Key& key, size_t depth) const { return names_[key.index].substr(depth); }

  std::span<Key> keys_of(const Group& group) {
    return std::span(keys_).subspan(group.begin, group.end - group.begin);
  }

  void sort_few(const Group& group) {
    const std::span<Key> keys = keys_of(group);
    std::sort(keys.begin(), keys.end(),
              [&](const Key& a, const Key& b) { return rest(a, group.depth) < rest(b, group.depth); });
  }

  size_t common_depth(std::span<const Key> keys, size_t depth) const {
    std::string_view common = rest(keys[0], depth);
    for (const Key& key : keys.subspan(1)) {
      const std::string_view other = rest(key, depth);
      const auto differ = std::mismatch(common.begin(), common.end(), other.begin(), other.end());
      common = common.substr(0, static_cast<size_t>(differ.first - common.begin()));
    }
    return depth + common.size();
  }

  /// By the next word after what the names have in common; those that it leaves equal become groups.
  void sort_many(const Group& group) {
    const std::span<Key> keys = keys_of(group);
    const size_t depth = common_depth(keys, group.depth);
    for (Key& key : keys) {
      key.word = word_of(rest(key, depth));
    }
    std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) { return a.word < b.word; });
    for (size_t begin = 0, end; begin < keys.size(); begin = end) {
      end = begin + 1;
      while (end < keys.size() && keys[end].word == keys[begin].word) {
        ++end;
      }
      if (end - begin > 1 && !ends_in(keys[begin].word)) {
        groups_.push_back({group.begin + begin, group.begin + end, depth + kBytesOfWord});
      }
    }
  }

  std::span<const std::string_view> names_;
  std::vector<Key> keys_;
  std::vector<Group> groups_;
};

}  // namespace

NameOrder order_names(std::span<const std::string_view> names) {
  NameOrder order{merge_stretches(names), std::nullopt};
  if (order.indices.size() != names.size()) {
    order.indices = Sorter(names).sort();
  }
  const auto twin = std::adjacent_find(order.indices.begin(), order.indices.end(),
                                       [&](uint32_t a, uint32_t b) { return names[a] == names[b]; });
  if (twin != order.indices.end()) {
    order.twin = names[*twin];
  }
  return order;
}

}  // namespace torch_safetensors::format
