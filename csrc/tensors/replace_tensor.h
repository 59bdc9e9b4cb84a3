#pragma once

#include <string>

#include "tensors/python_save.h"

namespace torch_safetensors::tensors {

/// The public `replace_tensor` with its arguments in the forms of python_save.h.
void replace_for_python(const std::string& filename, const std::string& name, const WrappedTensors& tensor);

}  // namespace torch_safetensors::tensors
