#include "modules/operators.h"

#include "tensors/save_plan.h"
#include "tensors/shared_storage.h"

namespace torch_safetensors::modules {
namespace {

NameLists to_lists(LoadModelResult result) {
  return {std::move(result.missing), std::move(result.unexpected)};
}

}  // namespace

NameListsAndWarning load_model_dict(const std::string& filename, const std::string& class_name,
                                    const TensorDict& tensors, const std::vector<std::string>& may_be_missing,
                                    bool strict, std::string_view backend) {
  FilledModel filled = load_model({class_name, tensors::to_named(tensors)}, filename, strict, backend,
                                  {may_be_missing.begin(), may_be_missing.end()});
  return {std::move(filled.names.missing), std::move(filled.names.unexpected), std::move(filled.warning)};
}

NameLists check_model_dict(const std::string& filename, const std::string& class_name,
                           const TensorDict& tensors, const std::vector<std::string>& may_be_missing,
                           bool strict) {
  return to_lists(check_model({class_name, tensors::to_named(tensors)}, filename, strict,
                              {may_be_missing.begin(), may_be_missing.end()}));
}

Metadata dropped_names(const TensorDict& tensors) {
  Metadata result;
  for (const auto& [name, kept] : tensors::find_dropped_names(tensors::to_named(tensors))) {
    result.insert(name, kept);
  }
  return result;
}

std::string save_model_for_python(const std::string& filename, const std::string& names,
                                  const std::vector<int64_t>& name_sizes,
                                  const tensors::WrappedTensors& tensors,
                                  const std::optional<Metadata>& metadata, bool force_contiguous, bool fsync,
                                  bool checksum, int64_t alignment) {
  return save_model({"", tensors::to_named(names, name_sizes, tensors)}, filename, metadata, force_contiguous,
                    fsync, checksum, alignment);
}

}  // namespace torch_safetensors::modules
