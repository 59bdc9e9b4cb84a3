#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace torch_safetensors::tensors {

/// A tensor and the name it has in a file or a model.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

}  // namespace torch_safetensors::tensors
