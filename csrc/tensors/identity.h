#pragma once

#include <ATen/core/Tensor.h>

#include <compare>

namespace torch_safetensors::tensors {

/// Identity of a tensor's memory: its address, or where it has none (meta, empty) that of the storage object.
const void* storage_key(const at::Tensor& tensor);

/// True where storages can be told apart by their addresses.
bool has_shareable_memory(const at::Tensor& tensor);

/// What the names of one tensor have in common: storage, offset, dtype, sizes and strides. A value, so that
/// sorting does not ask the tensors again for each comparison; it refers to its tensor, which must outlive
/// it.
class Identity {
 public:
  explicit Identity(const at::Tensor& tensor);

  /// Of no meaning but that equal ones are of one tensor.
  std::strong_ordering operator<=>(const Identity& other) const;
  bool operator==(const Identity& other) const { return *this <=> other == 0; }

 private:
  const void* storage_;
  int64_t offset_;
  c10::ScalarType dtype_;
  bool is_conj_;
  bool is_neg_;
  at::IntArrayRef sizes_;
  at::IntArrayRef strides_;
};

}  // namespace torch_safetensors::tensors
