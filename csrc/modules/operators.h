#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "modules/model.h"
#include "tensors/python_save.h"
#include "tensors/safe_open.h"

namespace torch_safetensors::modules {

// load_model and save_model in the forms that the Python package calls them in. To be loaded, a model is a
// dict, the result (missing, unexpected), and what to warn of. A dict and not a list of tensors, which the
// dispatcher would look into: one on the meta device, or of a subclass, would take the call away from here.

using NameLists = std::tuple<std::vector<std::string>, std::vector<std::string>>;

/// Of a handle, since what a model was checked against is what has to be loaded.
using Handle = c10::intrusive_ptr<tensors::SafeOpen>;

using NameListsAndWarning = std::tuple<std::vector<std::string>, std::vector<std::string>, std::string>;

NameListsAndWarning load_model_dict(const Handle& file, const std::string& class_name,
                                    const TensorDict& tensors, const std::vector<std::string>& may_be_missing,
                                    bool strict);

NameLists check_model_dict(const Handle& file, const std::string& class_name, const TensorDict& tensors,
                           const std::vector<std::string>& may_be_missing, bool strict);

/// Names that `save_model` does not write, each with the one that it writes in its place.
Metadata dropped_names(const TensorDict& tensors);

/// To be saved, its tensors are as in tensors/python_save.h.
std::string save_model_for_python(const std::string& filename, const std::string& names,
                                  const std::vector<int64_t>& name_sizes,
                                  const tensors::WrappedTensors& tensors,
                                  const std::optional<Metadata>& metadata, bool force_contiguous, bool fsync,
                                  bool checksum, int64_t alignment);

}  // namespace torch_safetensors::modules
