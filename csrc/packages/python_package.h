#pragma once

#include <torch/custom_class.h>

#include <string>
#include <vector>

#include "torch_safetensors/packages.h"

namespace torch_safetensors::packages {

/// `torch.classes.safetensors._Package`: a `PackagedModel` for Python's `aoti.load`.
class PythonPackage : public torch::CustomClassHolder {
 public:
  PythonPackage(const std::string& package, const std::string& weights, int64_t device_index,
                int64_t num_runners, bool strict, bool strict_digest, std::string backend);

  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs) { return model_.run(inputs); }
  void swap(const std::string& weights, bool strict, bool strict_digest, std::string backend, bool in_place);
  std::vector<std::string> call_spec() { return model_.call_spec(); }
  c10::Device device() { return model_.device(); }

 private:
  PackagedModel model_;
};

}  // namespace torch_safetensors::packages
