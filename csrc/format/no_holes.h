#pragma once

#include <cstdint>
#include <span>

#include "format/header.h"

namespace torch_safetensors::format {

/// The rule that tensors cover the data exactly: each begins where the one before it ends, the first at 0.
/// `tensors` are sorted by their offsets. Throws SafetensorError.
void check_no_holes(std::span<const TensorEntry> tensors);

/// The rest of the rule: the last ends where the data does. Throws SafetensorError.
void check_data_size(std::span<const TensorEntry> tensors, uint64_t data_size);

}  // namespace torch_safetensors::format
