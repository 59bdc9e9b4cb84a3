#include "format/metadata.h"

#include <algorithm>

#include "format/text.h"

namespace torch_safetensors::format {

Metadata::Metadata(std::initializer_list<Pair> pairs) {
  MetadataBuilder builder;
  for (const auto& [key, value] : pairs) {
    builder.add(key, value);
  }
  *this = std::move(builder).build();
}

bool Metadata::operator==(const Metadata& other) const { return std::ranges::equal(pairs(), other.pairs()); }

/// Of equal keys the one that was added last comes first.
bool Metadata::sorts_before(const Item& a, const Item& b) const {
  if (a.prefix != b.prefix) {
    return a.prefix < b.prefix;
  }
  const int order = key_of(a).compare(key_of(b));
  return order != 0 ? order < 0 : a.begin > b.begin;
}

void MetadataBuilder::add(std::string_view key, std::string_view value) {
  auto& items = metadata_.items_;
  if (items.size() == items.capacity()) {
    // Millions of pairs with one key between them shall not take the memory of millions.
    sort_out();
    items.reserve(std::max<size_t>(8, 2 * items.size()));
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
  const auto before = [this](const auto& a, const auto& b) { return metadata_.sorts_before(a, b); };
  if (!std::is_sorted(items.begin(), items.end(), before)) {
    std::sort(items.begin(), items.end(), before);
  }
  const auto same = [this](const auto& a, const auto& b) {
    return a.prefix == b.prefix && metadata_.key_of(a) == metadata_.key_of(b);
  };
  items.erase(std::unique(items.begin(), items.end(), same), items.end());
}

}  // namespace torch_safetensors::format
