#include "tensors/byte_range.h"

#include <c10/util/Exception.h>

#include "format/text.h"

namespace torch_safetensors::tensors {
namespace {

shared::Layout layout_of(const at::Tensor& tensor) {
  const at::IntArrayRef sizes = tensor.sizes();
  const at::IntArrayRef strides = tensor.strides();
  return {{sizes.data(), sizes.size()},
          {strides.data(), strides.size()},
          tensor.storage_offset(),
          tensor.itemsize()};
}

}  // namespace

bool has_memory(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.is_meta() && tensor.has_storage() &&
         !tensor.key_set().has(c10::DispatchKey::Python) && !tensor.unsafeGetTensorImpl()->is_nested();
}

std::optional<shared::Extent> storage_extent(const at::Tensor& tensor) {
  return shared::extent_of(layout_of(tensor));
}

std::optional<std::string> memory_fault(const at::Tensor& tensor) {
  const c10::Storage& storage = tensor.storage();
  return shared::memory_fault(layout_of(tensor), {storage.nbytes(), storage.data() != nullptr});
}

void check_memory(const at::Tensor& tensor, std::string_view label) {
  if (const std::optional<std::string> fault = memory_fault(tensor)) {
    TORCH_CHECK_VALUE(false, label, " ", *fault);
  }
}

void check_memory(const NamedTensor& named) {
  if (const std::optional<std::string> fault = memory_fault(named.tensor)) {
    TORCH_CHECK_VALUE(false, "tensor ", format::in_quotes(named.name), " ", *fault);
  }
}

void check_all_memory(std::span<const NamedTensor> tensors) {
  for (const NamedTensor& named : tensors) {
    if (named.tensor.defined() && has_memory(named.tensor)) {
      check_memory(named);
    }
  }
}

ByteRange byte_range(const at::Tensor& tensor) {
  check_memory(tensor, "a tensor");
  const shared::Extent extent = *storage_extent(tensor);
  const auto storage = reinterpret_cast<uintptr_t>(tensor.storage().data());
  return {storage + extent.begin, storage + extent.end};
}

}  // namespace torch_safetensors::tensors
