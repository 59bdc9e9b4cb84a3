#pragma once

#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// Throws ValueError (c10) for a parameter or buffer of a lazy module that has not run, which would be saved
/// as a tensor of shape [0]. What a tensor is in Python only Python knows: the package implements the
/// operator `safetensors::_is_uninitialized` for this, and without Python there are none.
void check_initialized(const NamedTensor& named);

}  // namespace torch_safetensors::tensors
