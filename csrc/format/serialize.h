#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/header.h"

namespace torch_safetensors::format {

/// A tensor to be written. The views must outlive the call they are passed to.
struct TensorSpec {
  std::string_view name;
  DType dtype;
  /// As it shall stand in the header: for F4 the last dimension counts elements, not bytes.
  std::span<const int64_t> shape;
};

/// What stands in front of the data, and the order in which the data follows.
struct SerializedHeader {
  /// Length field, JSON and padding; a multiple of 8 bytes and of the alignment long.
  std::string bytes;
  /// Indices into the specs: dtype descending, then name by its bytes; before both, with an alignment, the
  /// largest power of two that divides the size, descending.
  std::vector<size_t> order;
  /// Bytes of all tensors together.
  uint64_t data_size;
};

/// The header of a file that holds `specs`, byte for byte what the reference writes, with the
/// metadata sorted by key. `metadata` may be null (no `__metadata__`); an empty one is written as {}.
/// Names must be unique. With an `alignment`, in bytes, each tensor begins in the file at a multiple of the
/// largest power of two, at most that, which divides its size. Throws SafetensorError for a name or metadata
/// that is not UTF-8, a tensor named `__metadata__`, a size that overflows or does not end at a byte, a
/// header over kMaxHeaderSize, and an alignment that is neither 0 (none) nor a power of two from 8 to 4096.
SerializedHeader serialize_header(std::span<const TensorSpec> specs, const Metadata* metadata,
                                  int64_t alignment = 0);

}  // namespace torch_safetensors::format
