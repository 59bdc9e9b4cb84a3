#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>

#include "packages/record.h"
#include "torch_safetensors/packages.h"

namespace torch_safetensors::packages {

/// The tensors of `filename` and of the record for a package that has constants of these names, on `device`.
/// Throws SafetensorError with all that is missing, unexpected or different.
std::unordered_map<std::string, at::Tensor> read_constants(const Record& record,
                                                           const std::vector<std::string>& names,
                                                           const std::string& filename, at::Device device,
                                                           const ConstantsOptions& options);

}  // namespace torch_safetensors::packages
