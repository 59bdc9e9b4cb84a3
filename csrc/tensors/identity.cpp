#include "tensors/identity.h"

#include <algorithm>
#include <tuple>

#include "tensors/byte_range.h"

namespace torch_safetensors::tensors {
namespace {

std::strong_ordering compare(at::IntArrayRef a, at::IntArrayRef b) {
  return std::lexicographical_compare_three_way(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

bool has_shareable_memory(const at::Tensor& tensor) {
  return has_memory(tensor) && tensor.storage().nbytes() > 0 && tensor.storage().data() != nullptr;
}

const void* storage_key(const at::Tensor& tensor) {
  return has_shareable_memory(tensor) ? tensor.storage().data()
                                      : static_cast<const void*>(tensor.storage().unsafeGetStorageImpl());
}

Identity::Identity(const at::Tensor& tensor)
    : storage_(storage_key(tensor)),
      offset_(tensor.storage_offset()),
      dtype_(tensor.scalar_type()),
      is_conj_(tensor.is_conj()),
      is_neg_(tensor.is_neg()),
      sizes_(tensor.sizes()),
      strides_(tensor.strides()) {}

std::strong_ordering Identity::operator<=>(const Identity& other) const {
  if (const auto order = std::compare_three_way()(storage_, other.storage_); order != 0) {
    return order;
  }
  if (const auto order = std::tie(offset_, dtype_, is_conj_, is_neg_) <=>
                         std::tie(other.offset_, other.dtype_, other.is_conj_, other.is_neg_);
      order != 0) {
    return order;
  }
  const auto order = compare(sizes_, other.sizes_);
  return order != 0 ? order : compare(strides_, other.strides_);
}

}  // namespace torch_safetensors::tensors
