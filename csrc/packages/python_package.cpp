#include "packages/python_package.h"

#include <utility>

namespace torch_safetensors::packages {

PythonPackage::PythonPackage(const std::string& package, const std::string& weights, int64_t device_index,
                             int64_t num_runners, bool strict, bool strict_digest, std::string backend)
    : model_(package, weights,
             {strict, strict_digest, std::move(backend), static_cast<c10::DeviceIndex>(device_index)},
             static_cast<size_t>(num_runners)) {}

void PythonPackage::swap(const std::string& weights, bool strict, bool strict_digest, std::string backend,
                         bool in_place) {
  model_.swap(weights, {.strict = strict, .strict_digest = strict_digest, .backend = std::move(backend)},
              in_place);
}

}  // namespace torch_safetensors::packages
