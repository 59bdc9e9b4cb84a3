#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "tensors/joined_names.h"
#include "tensors/safe_open.h"

namespace torch_safetensors::tensors {

/// What the headers say of all tensors, file by file and in the order of the data; for the Python package,
/// which would need several calls for each tensor. In this order: names; dtypes; number of dimensions; all
/// shapes, one after the other; sizes in bytes; where each begins in its file; which of the files that is;
/// the files' paths, as they stand in messages; and where the data of each file begins.
using Listing = std::tuple<JoinedNames, std::vector<std::string>, std::vector<int64_t>, std::vector<int64_t>,
                           std::vector<int64_t>, std::vector<int64_t>, std::vector<int64_t>,
                           std::vector<std::string>, std::vector<int64_t>>;

Listing list_tensors(const c10::intrusive_ptr<SafeOpen>& handle);

}  // namespace torch_safetensors::tensors
