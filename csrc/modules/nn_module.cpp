#include <torch/nn/module.h>

#include "modules/model.h"
#include "tensors/save_plan.h"

namespace torch_safetensors {
namespace {

modules::Model to_model(const torch::nn::Module& module) {
  modules::Model model{module.name(), {}};
  for (const auto& parameter : module.named_parameters(/*recurse=*/true)) {
    model.tensors.push_back({parameter.key(), parameter.value()});
  }
  for (const auto& buffer : module.named_buffers(/*recurse=*/true)) {
    model.tensors.push_back({buffer.key(), buffer.value()});
  }
  return model;
}

}  // namespace

LoadModelResult load_model(torch::nn::Module& model, const std::string& filename, bool strict,
                           std::string_view backend, bool verify, bool strict_index) {
  modules::FilledModel filled =
      modules::load_model(to_model(model), filename, strict, backend, verify, strict_index);
  tensors::warn_of(filled.warning);
  return std::move(filled.names);
}

void save_model(const torch::nn::Module& model, const std::string& filename,
                const std::optional<Metadata>& metadata, bool force_contiguous, bool fsync, bool checksum,
                int64_t alignment) {
  tensors::warn_of(
      modules::save_model(to_model(model), filename, metadata, force_contiguous, fsync, checksum, alignment));
}

}  // namespace torch_safetensors
