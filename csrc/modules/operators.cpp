#include "modules/operators.h"

namespace torch_safetensors::modules {
namespace {

Model to_model(const std::string& class_name, const std::vector<std::string>& names,
               const std::vector<at::Tensor>& tensors) {
  TORCH_CHECK_VALUE(names.size() == tensors.size(), "there are ", names.size(), " names for ",
                    tensors.size(), " tensors");
  Model model{class_name, {}};
  model.tensors.reserve(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    model.tensors.push_back({names[i], tensors[i]});
  }
  return model;
}

NameLists to_lists(LoadModelResult result) {
  return {std::move(result.missing), std::move(result.unexpected)};
}

}  // namespace

NameLists load_model_lists(const std::string& filename, const std::string& class_name,
                           const std::vector<std::string>& names, const std::vector<at::Tensor>& tensors,
                           const std::vector<std::string>& may_be_missing, bool strict,
                           std::string_view backend) {
  return to_lists(load_model(to_model(class_name, names, tensors), filename, strict, backend,
                             {may_be_missing.begin(), may_be_missing.end()}));
}

NameLists check_model_lists(const std::string& filename, const std::string& class_name,
                            const std::vector<std::string>& names, const std::vector<at::Tensor>& tensors,
                            const std::vector<std::string>& may_be_missing, bool strict) {
  return to_lists(check_model(to_model(class_name, names, tensors), filename, strict,
                              {may_be_missing.begin(), may_be_missing.end()}));
}

void save_model_lists(const std::string& filename, const std::vector<std::string>& names,
                      const std::vector<at::Tensor>& tensors, const std::optional<Metadata>& metadata,
                      bool force_contiguous, bool fsync) {
  save_model(to_model("", names, tensors), filename, metadata, force_contiguous, fsync);
}

}  // namespace torch_safetensors::modules
