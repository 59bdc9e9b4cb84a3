#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "modules/model.h"

namespace torch_safetensors::modules {

// load_model and save_model in the forms that the Python package calls them in: a model as a dict, the result
// as (missing, unexpected). A dict and not a list of tensors, which the dispatcher would look into: one on
// the meta device, or of a subclass, would take the call away from here.

using NameLists = std::tuple<std::vector<std::string>, std::vector<std::string>>;

NameLists load_model_dict(const std::string& filename, const std::string& class_name,
                          const TensorDict& tensors, const std::vector<std::string>& may_be_missing,
                          bool strict, std::string_view backend);

NameLists check_model_dict(const std::string& filename, const std::string& class_name,
                           const TensorDict& tensors, const std::vector<std::string>& may_be_missing,
                           bool strict);

std::string save_model_dict(const std::string& filename, const TensorDict& tensors,
                            const std::optional<Metadata>& metadata, bool force_contiguous, bool fsync);

}  // namespace torch_safetensors::modules
