#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "format/fixed_buffer.h"
#include "format/header.h"

namespace torch_safetensors::format {

/// The content of a header's JSON, in its order; nothing but its form is checked.
struct HeaderContent {
  /// With room for all that can stand in `json`.
  explicit HeaderContent(std::string_view json);

  /// Keeps `name` and returns where.
  std::string_view add_name(std::string_view name) {
    const std::span<const char> kept = names.append(name);
    return {kept.data(), kept.size()};
  }

  FixedBuffer<char> names;
  FixedBuffer<int64_t> dims;
  /// Their views point into the two buffers.
  std::vector<TensorEntry> tensors;
  std::optional<Metadata> metadata;
};

}  // namespace torch_safetensors::format
