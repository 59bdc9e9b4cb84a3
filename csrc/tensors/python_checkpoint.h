#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <tuple>
#include <vector>

namespace torch_safetensors::tensors {

// What the Python package needs of checkpoints besides the operators.

/// The entries of an index, `json` as a 1-D uint8 tensor: names of tensors, and the file of each. Throws
/// SafetensorError in the name of `source`.
std::tuple<std::vector<std::string>, std::vector<std::string>> parse_index(const std::string& source,
                                                                           const at::Tensor& json);

/// Writes a 1-D uint8 tensor to a file, atomically (io/atomic_file.h). Returns what to warn of, as SavePlan
/// does.
std::string write_file(const std::string& filename, const at::Tensor& data, bool fsync);

}  // namespace torch_safetensors::tensors
