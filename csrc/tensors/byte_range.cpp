#include "tensors/byte_range.h"

namespace torch_safetensors::tensors {

ByteRange byte_range(const at::Tensor& tensor) {
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  if (tensor.numel() == 0) {
    return {begin, begin};
  }
  int64_t last = 0;
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    last += (tensor.size(dim) - 1) * tensor.stride(dim);
  }
  return {begin, begin + (last + 1) * tensor.element_size()};
}

bool has_memory(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.is_meta() && tensor.has_storage() &&
         !tensor.key_set().has(c10::DispatchKey::Python) && !tensor.unsafeGetTensorImpl()->is_nested();
}

}  // namespace torch_safetensors::tensors
