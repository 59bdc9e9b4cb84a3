#pragma once

#include <cstdint>
#include <span>

#include "format/dtype.h"

namespace torch_safetensors::format {

/// Bytes of a dense tensor. Throws SafetensorError, without a tensor's name, if the product
/// overflows 64 bits (folded left to right, before a later zero is seen, as the reference does), or if a
/// sub-byte dtype does not end at a byte boundary.
uint64_t tensor_nbytes(DType dtype, std::span<const int64_t> shape);

}  // namespace torch_safetensors::format
