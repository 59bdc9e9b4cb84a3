#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "tensors/checkpoint.h"

namespace torch_safetensors::tensors {

// A graph has the dtypes and shapes of its inputs compiled in, and nothing in torch checks them again: run on
// a file that has changed since, it would misread memory. So a traced load carries what the header must say.

/// Names of a file's tensors, in the order of their data, and what its header says of each, as `F32[4,16]`.
std::tuple<std::vector<std::string>, std::vector<std::string>> signatures(const std::string& filename,
                                                                          bool strict_index);

/// All names, though files be missing or malformed.
std::vector<std::string> names_of_present(const std::string& filename);

/// The latter of tensors of these names, for which only their files are opened.
std::vector<std::string> signatures_of(const std::string& filename, const std::vector<std::string>& names);

/// Loads `names`. `expect` holds what the header must say of each; `exact` means that the file must hold
/// these names and no others, for which `strict_index` is that of the public `load_file`. Both are checked
/// before any byte is used. Throws SafetensorError with both forms. `verify` compares their bytes with the
/// file's checksums (checksums.h).
std::vector<at::Tensor> load_expected(const std::string& filename, const std::vector<std::string>& names,
                                      at::Device device, std::string_view backend,
                                      const std::optional<std::vector<std::string>>& expect, bool exact,
                                      bool verify, bool strict_index);

/// The same for one tensor.
at::Tensor load_expected_tensor(const std::string& filename, const std::string& name, at::Device device,
                                std::string_view backend, const std::optional<std::string>& expect,
                                bool verify);

}  // namespace torch_safetensors::tensors
