#pragma once

#include "shared/scalar_type.h"

namespace torch_safetensors::tensors {

using shared::packing;
using shared::to_dtype;
using shared::to_scalar_type;

}  // namespace torch_safetensors::tensors
