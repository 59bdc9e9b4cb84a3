#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace torch_safetensors::format {

/// Names in the order of their bytes.
struct NameOrder {
  /// Indices into the names.
  std::vector<uint32_t> indices;
  /// A name that is there twice, the first of them in this order; nothing if all differ.
  std::optional<std::string_view> twin;
};

/// Sorts `names`, at most 2^32 of them. By comparing, not by hashing: nobody can choose names that make it
/// slow. Each byte of a name is looked at a bounded number of times, however much the names have in common.
NameOrder order_names(std::span<const std::string_view> names);

}  // namespace torch_safetensors::format
