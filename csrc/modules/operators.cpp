#include "modules/operators.h"

#include "tensors/byte_range.h"
#include "tensors/save_plan.h"
#include "tensors/shared_storage.h"

namespace torch_safetensors::modules {
namespace {

NameLists to_lists(LoadModelResult result) {
  return {std::move(result.missing), std::move(result.unexpected)};
}

}  // namespace

NameListsAndWarning load_model_dict(const Handle& file, const std::string& class_name,
                                    const TensorDict& tensors, const std::vector<std::string>& may_be_missing,
                                    bool strict) {
  FilledModel filled = load_model({class_name, tensors::to_named(tensors)}, file->file(), strict,
                                  {may_be_missing.begin(), may_be_missing.end()}, /*verify=*/false);
  return {std::move(filled.names.missing), std::move(filled.names.unexpected), std::move(filled.warning)};
}

NameLists check_model_dict(const Handle& file, const std::string& class_name, const TensorDict& tensors,
                           const std::vector<std::string>& may_be_missing, bool strict) {
  return to_lists(check_model({class_name, tensors::to_named(tensors)}, file->file(), strict,
                              {may_be_missing.begin(), may_be_missing.end()}));
}

Metadata dropped_names(const TensorDict& tensors) {
  const std::vector<tensors::NamedTensor> named = tensors::to_named(tensors);
  tensors::check_all_memory(named);
  Metadata result;
  for (const auto& [name, kept] : tensors::find_dropped_names(named)) {
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
