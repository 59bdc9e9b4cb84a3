#include "packages/package_model.h"

#include <utility>

namespace torch_safetensors::packages {

PackageModel::PackageModel(const std::string& package, const std::string& weights, int64_t device_index,
                           int64_t runners, bool strict, bool strict_digest, std::string backend)
    : device_index_(static_cast<c10::DeviceIndex>(device_index)),
      loader_(package, "model", /*run_single_threaded=*/false, runners, device_index_) {
  constants_ = load_constants(loader_, weights, {strict, strict_digest, std::move(backend), device_index_});
}

std::vector<at::Tensor> PackageModel::run(const std::vector<at::Tensor>& inputs) {
  return loader_.run(inputs);
}

void PackageModel::swap(const std::string& weights, bool strict, bool strict_digest, std::string backend) {
  const std::lock_guard lock(swapping_);
  constants_ =
      torch_safetensors::swap(loader_, weights, {strict, strict_digest, std::move(backend), device_index_});
}

std::vector<std::string> PackageModel::call_spec() { return loader_.get_call_spec(); }

}  // namespace torch_safetensors::packages
