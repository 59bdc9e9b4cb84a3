#pragma once

#include <torch/custom_class.h>

#include "tensors/save_plan.h"

namespace torch_safetensors::tensors {

/// A save in two steps, for the Python package: it asks for the size, makes one `bytes` object of it, and has
/// that filled, where `save` would cost a second copy of everything.
class PythonSave : public torch::CustomClassHolder {
 public:
  PythonSave(const TensorDict& tensors, const std::optional<Metadata>& metadata)
      : plan_(to_named(tensors), to_format(metadata)) {}

  int64_t size() const { return static_cast<int64_t>(plan_.size()); }

  /// Fills `out`, a contiguous uint8 tensor of `size()` elements.
  void write_to(const at::Tensor& out) const;

 private:
  SavePlan plan_;
};

}  // namespace torch_safetensors::tensors
