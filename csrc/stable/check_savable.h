#pragma once

#include <string>
#include <vector>

#include "stable/new_tensor.h"

namespace torch_safetensors::stable {

/// Checks that the tensors can be written as they are: dense, contiguous, of a dtype of the format, with
/// memory, each name once, and none overlapping another. Replaces those on other devices, and lazy conjugate
/// and negative views, by copies on the CPU. Throws std::invalid_argument, and std::runtime_error for shared
/// memory, naming the tensor.
void make_savable(const std::vector<std::string>& names, std::vector<Tensor>& tensors);

}  // namespace torch_safetensors::stable
