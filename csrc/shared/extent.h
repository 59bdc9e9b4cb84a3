#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace torch_safetensors::shared {

/// What a tensor says of itself: where it lies in its storage.
struct Layout {
  std::span<const int64_t> sizes;
  std::span<const int64_t> strides;
  int64_t offset;  ///< In elements.
  uint64_t item_size;
};

/// The memory that a tensor lies in.
struct Memory {
  uint64_t nbytes;
  bool has_data;  ///< Whether it has an address.
};

/// Bytes of a storage: [begin, end).
struct Extent {
  uint64_t begin;
  uint64_t end;
};

/// `[2, 2]`, as torch prints it.
std::string in_brackets(std::span<const int64_t> numbers);

/// From the first byte of a tensor to its last, gaps between its elements included; [0, 0) for a tensor
/// without elements. Nothing for a layout that no storage can hold: a negative size, stride or offset, and
/// numbers that do not fit in 64 bits.
std::optional<Extent> extent_of(const Layout& layout);

/// What is wrong with the memory of a tensor, in words that follow its name: "needs 4000 bytes of its
/// storage, which has 8 (storage offset 0, shape [1000], strides [1]); ...". Nothing where all of the tensor
/// lies in it.
///
/// A storage can be resized and freed under its tensors, which keep their shapes: FSDP and offloading do
/// that. Neither torch nor the tensor's own methods look again, so that nothing may be read or written before
/// this was asked.
std::optional<std::string> memory_fault(const Layout& layout, const Memory& memory);

}  // namespace torch_safetensors::shared
