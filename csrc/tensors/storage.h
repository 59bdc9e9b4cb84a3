#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace torch_safetensors::tensors {

/// What a tensor is before it has memory.
struct TensorType {
  c10::ScalarType dtype;
  std::vector<int64_t> sizes;
  size_t nbytes;
};

/// A dense tensor over `data`, memory of the device, in a storage of its own that has exactly its bytes,
/// cannot be resized, and keeps `owner` alive.
at::Tensor tensor_over(std::byte* data, const TensorType& type, std::shared_ptr<void> owner,
                       c10::Device device = c10::kCPU);

/// The same where `data` is aligned for the dtype (files place tensors at any address); otherwise a copy.
at::Tensor tensor_over_or_copy(std::byte* data, const TensorType& type, std::shared_ptr<void> owner);

/// An uninitialised dense tensor whose storage has exactly its bytes and cannot be resized.
at::Tensor empty_tensor(const TensorType& type, c10::Device device);

/// The memory of a dense CPU tensor, to be written.
std::span<std::byte> writable_bytes(const at::Tensor& tensor);

/// The memory of a dense CPU tensor, to be read.
std::span<const std::byte> readable_bytes(const at::Tensor& tensor);

/// True where `data` may be accessed as elements of `dtype`.
bool is_aligned(const std::byte* data, c10::ScalarType dtype);

}  // namespace torch_safetensors::tensors
