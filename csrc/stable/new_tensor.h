#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/tensor.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "format/header.h"
#include "shared/extent.h"
#include "shared/scalar_type.h"

namespace torch_safetensors::stable {

using torch::stable::Device;
using torch::stable::Tensor;

/// What a tensor is before it has memory.
struct TensorType {
  shared::ScalarType dtype;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  size_t nbytes;
  size_t item_size;
};

/// Throws SafetensorError `<source>: <message>`. A source is a printable path, or "bytes".
[[noreturn]] void throw_malformed(const std::string& source, const std::string& message);

/// dtype and sizes of a tensor in torch's terms: the last dimension of F4 is halved. Throws SafetensorError
/// where torch cannot hold the tensor.
TensorType tensor_type(const std::string& source, const format::TensorEntry& entry);

/// A tensor without bytes, or on the meta device.
Tensor empty_tensor(const TensorType& type, Device device);

/// A dense CPU tensor over `data`, in a storage of its own that keeps `owner` alive. Not for a tensor without
/// bytes.
Tensor tensor_over(std::byte* data, const TensorType& type, std::shared_ptr<void> owner);

/// The same over memory of its own, which is not initialised. `data` becomes its address.
Tensor new_tensor(const TensorType& type, std::byte*& data);

/// Throws std::invalid_argument, `<label> <fault>`, where the memory of a strided tensor is not there
/// (shared/extent.h). Before anything reads or writes it: torch does not look.
void check_memory(const Tensor& tensor, const std::string& label);

/// The tensor itself, or a copy of a lazy conjugate or negative view.
Tensor resolved(const Tensor& tensor);

/// True where `data` may be accessed as elements of the type.
bool is_aligned(const std::byte* data, const TensorType& type);

}  // namespace torch_safetensors::stable
