#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "format/header.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {

/// `load_file` as parallel lists: a dict of 100,000 tensors converts to Python several times faster so. The
/// numbers are those of TransferOptions.
std::tuple<std::vector<std::string>, std::vector<at::Tensor>> load_file_lists(
    const std::string& filename, at::Device device, std::string_view backend,
    std::optional<int64_t> threads = std::nullopt, std::optional<int64_t> ring_size = std::nullopt);

/// The same for `load`.
std::tuple<std::vector<std::string>, std::vector<at::Tensor>> load_lists(const at::Tensor& data,
                                                                         at::Device device, bool copy);

/// The names of the tensors, in the order of the data.
std::vector<std::string> names_of(const format::Header& header);

/// The metadata as operators return it; empty where the header has none.
Metadata metadata_of(const format::Header& header);

}  // namespace torch_safetensors::tensors
