#include "format/metadata.h"

#include <algorithm>

#include "format/name_order.h"
#include "format/text.h"

namespace torch_safetensors::format {
namespace {

/// Pairs whose memory is worth the time to look for equal keys among them.
constexpr size_t kMany = 1 << 20;

/// Of two pairs with one key. Only one without a single byte leaves the next to begin where it did.
bool is_later(const auto& a, const auto& b) {
  return a.begin != b.begin ? a.begin > b.begin : a.value_size > b.value_size;
}

}  // namespace

Metadata::Metadata(std::initializer_list<Pair> pairs) {
  MetadataBuilder builder;
  for (const auto& [key, value] : pairs) {
    builder.add(key, value);
  }
  *this = std::move(builder).build();
}

bool Metadata::operator==(const Metadata& other) const { return std::ranges::equal(pairs(), other.pairs()); }

void MetadataBuilder::add(std::string_view key, std::string_view value) {
  auto& items = metadata_.items_;
  if (items.size() == items.capacity() && items.size() >= kMany) {
    // Millions of pairs with few keys between them shall not take the memory of millions.
    sort_out();
    items.reserve(2 * items.size());
  }
  items.push_back({sortable_prefix(key), metadata_.text_.size(), key.size(), value.size()});
  metadata_.text_ += key;
  metadata_.text_ += value;
}

Metadata MetadataBuilder::build() && {
  sort_out();
  return std::move(metadata_);
}

/// In place, and not by a map: of millions of keys that would take many times the header's memory.
void MetadataBuilder::sort_out() {
  auto& items = metadata_.items_;
  const auto by_key = [this](const Item& a, const Item& b) {
    return metadata_.key_of(a) < metadata_.key_of(b);
  };
  if (!std::is_sorted(items.begin(), items.end(), by_key)) {
    // By what stands in the items first: the text is far away.
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.prefix < b.prefix; });
    for (auto begin = items.begin(), end = begin; begin != items.end(); begin = end) {
      end = std::find_if(begin, items.end(), [&](const Item& item) { return item.prefix != begin->prefix; });
      sort_alike({begin, end});
    }
  }
  keep_last_of_equal();
}

/// Sorts items that have their prefix in common.
void MetadataBuilder::sort_alike(std::span<Item> items) {
  if (items.size() < 2) {
    return;
  }
  std::vector<std::string_view> keys;
  keys.reserve(items.size());
  for (const Item& item : items) {
    keys.push_back(metadata_.key_of(item));
  }
  const std::vector<Item> unsorted(items.begin(), items.end());
  const std::vector<uint32_t> order = order_names(keys).indices;
  std::transform(order.begin(), order.end(), items.begin(), [&](uint32_t index) { return unsorted[index]; });
}

void MetadataBuilder::keep_last_of_equal() {
  auto& items = metadata_.items_;
  size_t kept = 0;
  for (const Item& item : items) {
    if (kept == 0 || metadata_.key_of(items[kept - 1]) != metadata_.key_of(item)) {
      items[kept++] = item;
    } else if (is_later(item, items[kept - 1])) {
      items[kept - 1] = item;
    }
  }
  items.resize(kept);
}

}  // namespace torch_safetensors::format
