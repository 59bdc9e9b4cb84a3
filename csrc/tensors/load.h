#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {

/// `load_file` as parallel lists: a dict of 100,000 tensors converts to Python several times faster so.
std::tuple<std::vector<std::string>, std::vector<at::Tensor>> load_file_lists(const std::string& filename,
                                                                              at::Device device,
                                                                              std::string_view backend);

/// The same for `load`.
std::tuple<std::vector<std::string>, std::vector<at::Tensor>> load_lists(const at::Tensor& data,
                                                                         at::Device device, bool copy);

}  // namespace torch_safetensors::tensors
