#pragma once

#include <cstdint>
#include <span>

#include "format/header.h"

namespace torch_safetensors::format {

/// The rule that tensors cover the data exactly: each begins where the one before it ends, the first at 0,
/// and the last ends at `data_size`. `tensors` are sorted by their offsets. Throws SafetensorError.
void check_no_holes(std::span<const TensorEntry> tensors, uint64_t data_size);

}  // namespace torch_safetensors::format
