#include "tensors/storage.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>

#include <cstring>

#include "tensors/byte_range.h"

namespace torch_safetensors::tensors {
namespace {

void release_owner(void* context) {
  c10::raw::intrusive_ptr::decref(static_cast<c10::intrusive_ptr_target*>(context));
}

/// What is no such tensor would be read past its end.
void check_bytes(const at::Tensor& tensor) {
  if (tensor.numel() == 0) {
    return;  // no bytes, on any device
  }
  const bool is_lazy = tensor.is_conj() || tensor.is_neg();
  TORCH_CHECK_VALUE(has_memory(tensor) && tensor.is_cpu() && tensor.is_contiguous() && !is_lazy,
                    "expected a contiguous tensor on the CPU with memory of its own");
  check_memory(tensor, "a tensor");
}

}  // namespace

at::Tensor tensor_over(std::byte* data, const TensorType& type, MemoryOwner owner, c10::Device device) {
  // Built by hand and not by at::from_blob, which costs several times as much and counts when a
  // file has a hundred thousand tensors.
  c10::intrusive_ptr_target* const context = owner.release();
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), type.nbytes,
                                                       c10::DataPtr(data, context, &release_owner, device),
                                                       /*allocator=*/nullptr, /*resizable=*/false);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(std::move(storage)), c10::computeDispatchKey(type.dtype, c10::kStrided, device),
      c10::scalarTypeToTypeMeta(type.dtype));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(type.sizes);
  return tensor;
}

at::Tensor tensor_over_or_copy(std::byte* data, const TensorType& type, MemoryOwner owner) {
  if (type.nbytes == 0 || is_aligned(data, type.dtype)) {
    return tensor_over(data, type, std::move(owner));
  }
  at::Tensor copy = empty_tensor(type, c10::kCPU);
  std::memcpy(copy.mutable_data_ptr(), data, type.nbytes);
  return copy;
}

at::Tensor empty_tensor(const TensorType& type, c10::Device device) {
  at::Tensor tensor = at::empty(type.sizes, at::TensorOptions().dtype(type.dtype).device(device));
  tensor.storage().unsafeGetStorageImpl()->set_resizable(false);
  return tensor;
}

std::vector<at::Tensor> to_device(std::vector<at::Tensor> tensors, c10::Device device) {
  if (!device.is_cpu()) {
    for (at::Tensor& tensor : tensors) {
      tensor = tensor.to(device);
    }
  }
  return tensors;
}

std::span<std::byte> writable_bytes(const at::Tensor& tensor) {
  check_bytes(tensor);
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

std::span<const std::byte> readable_bytes(const at::Tensor& tensor) {
  check_bytes(tensor);
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

bool is_aligned(const std::byte* data, c10::ScalarType dtype) {
  return reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) == 0;
}

}  // namespace torch_safetensors::tensors
