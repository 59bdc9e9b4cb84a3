#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stable/new_tensor.h"

namespace torch_safetensors::stable {

// The operators that read, as csrc/tensors has them. What a malformed or other file is refused with is
// SafetensorError, what the system reports OsError, and a wrong argument std::invalid_argument, which becomes
// Python's ValueError.

using Texts = std::vector<std::string>;

/// Names of a file's tensors, in the order of their data, and what its header says of each, as `F32[4,16]`.
std::pair<Texts, Texts> signatures(const std::string& filename);

/// What the header says of tensors of these names.
Texts signatures_of(const std::string& filename, const Texts& names);

/// Names of a file's tensors, in the order of their data.
Texts keys(const std::string& filename);

/// Has the system begin to read these tensors into memory.
void prefetch(const std::string& filename, const Texts& names);

/// All tensors of a file, with their names, in the order of their data.
std::pair<Texts, std::vector<Tensor>> load_all(const std::string& filename, Device device,
                                               std::string_view backend);

/// Loads `names`. `expect` holds what the header must say of each; `exact` means that the file must hold
/// these names and no others. Both are checked before any byte is used.
std::vector<Tensor> load_tensors(const std::string& filename, const Texts& names, Device device,
                                 std::string_view backend, const std::optional<Texts>& expect, bool exact);

/// Reads into a tensor of the same shape and dtype, on any device.
void load_into(const std::string& filename, const std::string& name, Tensor out,
               const std::optional<std::vector<int64_t>>& offsets);

/// All tensors in `data`, the bytes of a file as a 1-D uint8 tensor, with their names. They are copies.
std::pair<Texts, std::vector<Tensor>> load_bytes(const Tensor& data, Device device);

}  // namespace torch_safetensors::stable
