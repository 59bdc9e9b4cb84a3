#pragma once

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/custom_class.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "torch_safetensors/packages.h"

namespace torch_safetensors::packages {

/// `torch.classes.safetensors._Package`: a package and the weights it runs with, for Python's `aoti.load`.
class PackageModel : public torch::CustomClassHolder {
 public:
  PackageModel(const std::string& package, const std::string& weights, int64_t device_index, int64_t runners,
               bool strict, bool strict_digest, std::string backend);

  /// Tensors in the order of the flattened arguments; safe from several threads.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs);

  /// Safe while other threads run it.
  void swap(const std::string& weights, bool strict, bool strict_digest, std::string backend);

  /// How arguments and results are flattened, as torch writes it.
  std::vector<std::string> call_spec();

 private:
  const c10::DeviceIndex device_index_;
  std::mutex swapping_;
  std::unique_ptr<Constants> constants_;  // outlives the loader
  torch::inductor::AOTIModelPackageLoader loader_;
};

}  // namespace torch_safetensors::packages
