#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace torch_safetensors::format {

/// The name under which a header has its metadata.
inline constexpr std::string_view kMetadataKey = "__metadata__";

/// The `__metadata__` of a file: pairs of key and value, sorted by the bytes of their keys, no key twice.
/// However many they are, they lie in two blocks of memory: a header can hold ten million of them.
class Metadata {
 public:
  using Pair = std::pair<std::string_view, std::string_view>;

  Metadata() = default;

  /// Of equal keys the last one stays.
  Metadata(std::initializer_list<Pair> pairs);

  size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }

  /// The pair at `index` in the order of the keys. Its views point into this object.
  Pair operator[](size_t index) const { return {key_of(items_[index]), value_of(items_[index])}; }

  /// All of them, to be iterated over.
  auto pairs() const {
    return std::views::iota(size_t{0}, size()) |
           std::views::transform([this](size_t index) { return (*this)[index]; });
  }

  bool operator==(const Metadata& other) const;

 private:
  friend class MetadataBuilder;

  /// The value follows the key.
  struct Item {
    /// The first eight bytes of the key as a number that sorts as they do: most comparisons need no more.
    uint64_t prefix;
    size_t begin;
    size_t key_size;
    size_t value_size;
  };

  std::string_view key_of(const Item& item) const { return {text_.data() + item.begin, item.key_size}; }
  std::string_view value_of(const Item& item) const {
    return {text_.data() + item.begin + item.key_size, item.value_size};
  }

  std::string text_;
  std::vector<Item> items_;
};

/// Collects the pairs of a `Metadata`.
class MetadataBuilder {
 public:
  /// In any order. The strings are copied.
  void add(std::string_view key, std::string_view value);

  /// Sorts what was added; of equal keys the last one stays.
  Metadata build() &&;

 private:
  using Item = Metadata::Item;

  void sort_out();
  void sort_alike(std::span<Item> items);
  void keep_last_of_equal();

  Metadata metadata_;
};

}  // namespace torch_safetensors::format
