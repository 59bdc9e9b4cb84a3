#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace torch_safetensors::tensors {

/// The addresses from a tensor's first byte to its last: [begin, end). Empty for a tensor without elements.
/// What lies between the elements of a strided tensor counts as its own.
struct ByteRange {
  uintptr_t begin;
  uintptr_t end;
};

ByteRange byte_range(const at::Tensor& tensor);

/// True for a strided tensor with memory of its own or shared: not sparse, not on meta, not a wrapper (a
/// subclass that runs code of its own, as FakeTensor does).
bool has_memory(const at::Tensor& tensor);

}  // namespace torch_safetensors::tensors
