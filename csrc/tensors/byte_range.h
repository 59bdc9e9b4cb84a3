#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "shared/extent.h"
#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// True for a strided tensor with memory of its own or shared: not sparse, not on meta, not a wrapper (a
/// subclass that runs code of its own, as FakeTensor does). Whether that memory is still there,
/// `check_memory` says.
bool has_memory(const at::Tensor& tensor);

/// Where a strided tensor with a storage lies in it; nothing for what no storage can hold (shared/extent.h).
std::optional<shared::Extent> storage_extent(const at::Tensor& tensor);

/// What is wrong with the memory of a tensor that `has_memory`, in words that follow its name
/// (shared/extent.h); nothing if all of it may be read and written.
std::optional<std::string> memory_fault(const at::Tensor& tensor);

/// Throws ValueError (c10), `<label> <fault>`, where there is one. Comes before all that reads or writes a
/// tensor's values, also before torch's own copies, which do not look.
void check_memory(const at::Tensor& tensor, std::string_view label);

/// The same with the label `tensor '<name>'`.
void check_memory(const NamedTensor& named);

/// The same of all those that are defined and have memory of their own.
void check_all_memory(std::span<const NamedTensor> tensors);

/// The addresses from a tensor's first byte to its last: [begin, end). Empty for a tensor without elements.
/// What lies between the elements of a strided tensor counts as its own.
struct ByteRange {
  uintptr_t begin;
  uintptr_t end;
};

/// Throws what `check_memory` throws.
ByteRange byte_range(const at::Tensor& tensor);

}  // namespace torch_safetensors::tensors
