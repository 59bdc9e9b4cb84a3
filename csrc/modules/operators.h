#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "modules/model.h"

namespace torch_safetensors::modules {

// load_model and save_model in the forms that the Python package calls them in: a model as parallel lists, the result as
// (missing, unexpected).

using NameLists = std::tuple<std::vector<std::string>, std::vector<std::string>>;

NameLists load_model_lists(const std::string& filename, const std::string& class_name,
                           const std::vector<std::string>& names, const std::vector<at::Tensor>& tensors,
                           const std::vector<std::string>& may_be_missing, bool strict,
                           std::string_view backend);

NameLists check_model_lists(const std::string& filename, const std::string& class_name,
                            const std::vector<std::string>& names, const std::vector<at::Tensor>& tensors,
                            const std::vector<std::string>& may_be_missing, bool strict);

void save_model_lists(const std::string& filename, const std::vector<std::string>& names,
                      const std::vector<at::Tensor>& tensors, const std::optional<Metadata>& metadata,
                      bool force_contiguous, bool fsync);

}  // namespace torch_safetensors::modules
