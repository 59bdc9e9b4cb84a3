#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/DimVector.h>
#include <c10/util/intrusive_ptr.h>

#include <cstddef>
#include <span>
#include <vector>

namespace torch_safetensors::tensors {

/// What a tensor is before it has memory.
struct TensorType {
  c10::ScalarType dtype;
  c10::DimVector sizes;
  size_t nbytes;
};

/// What tensors over memory that is not their own keep alive: a mapping, or the tensor it belongs to.
using MemoryOwner = c10::intrusive_ptr<c10::intrusive_ptr_target>;

/// A dense tensor over `data`, memory of the device, in a storage of its own that has exactly its bytes,
/// cannot be resized, and keeps `owner` alive: a reference that is counted in the owner itself, and costs no
/// allocation.
at::Tensor tensor_over(std::byte* data, const TensorType& type, MemoryOwner owner,
                       c10::Device device = c10::kCPU);

/// The same where `data` is aligned for the dtype (files place tensors at any address); otherwise a copy.
at::Tensor tensor_over_or_copy(std::byte* data, const TensorType& type, MemoryOwner owner);

/// An uninitialised dense tensor whose storage has exactly its bytes and cannot be resized.
at::Tensor empty_tensor(const TensorType& type, c10::Device device);

/// The tensors, on that device.
std::vector<at::Tensor> to_device(std::vector<at::Tensor> tensors, c10::Device device);

/// The memory of a contiguous CPU tensor, to be written. Throws ValueError (c10) for another one, and for a
/// tensor whose memory is not there (byte_range.h), which whoever knows its name has told before.
std::span<std::byte> writable_bytes(const at::Tensor& tensor);

/// The same, to be read.
std::span<const std::byte> readable_bytes(const at::Tensor& tensor);

/// True where `data` may be accessed as elements of `dtype`.
bool is_aligned(const std::byte* data, c10::ScalarType dtype);

}  // namespace torch_safetensors::tensors
