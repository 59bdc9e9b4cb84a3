#pragma once

#include <c10/core/Device.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "packages/record.h"
#include "packages/weights_file.h"

namespace torch_safetensors::packages {

/// Tensors whose addresses a loader has. It keeps a reference to each for ever (`user_managed` handles are
/// never deleted, in torch 2.11 to 2.13), so that only their storages can be given back: the destructor does.
class LentConstants {
 public:
  explicit LentConstants(NamedConstants tensors) : tensors_(std::move(tensors)) {}
  LentConstants(const LentConstants&) = delete;
  LentConstants& operator=(const LentConstants&) = delete;
  ~LentConstants();

  const NamedConstants& tensors() const { return tensors_; }

 private:
  void wait_for_readers() noexcept;

  NamedConstants tensors_;
};

/// Gives weights to the loader of a package.
class ConstantsLoader {
 public:
  /// The loader must outlive it. Throws SafetensorError where the package does not record its weights.
  ConstantsLoader(torch::inductor::AOTIModelPackageLoader& loader, c10::DeviceIndex device_index);

  /// A file that fits. Throws SafetensorError for another one.
  std::unique_ptr<WeightsFile> open(const std::string& filename, const ConstantsOptions& options) const;

  /// Puts its weights into the loader's active buffer, which no other thread may run then, or into the
  /// inactive one.
  std::unique_ptr<LentConstants> load(const WeightsFile& file, bool use_inactive);

  /// Computes what is computed from the weights alone, in that buffer.
  void fold(bool use_inactive);

  /// Exchanges the buffers, between two runs.
  void swap() { loader_.get_runner()->swap_constant_buffer(); }

  at::Device device() const { return device_; }

  /// Returns when the device has done what was launched.
  void synchronize() const;

 private:
  /// The metadata once: a copy, which holds the constants that come with the package.
  ConstantsLoader(torch::inductor::AOTIModelPackageLoader& loader,
                  const std::unordered_map<std::string, std::string>& metadata,
                  c10::DeviceIndex device_index);

  torch::inductor::AOTIModelPackageLoader& loader_;
  Record record_;
  std::vector<std::string> names_;
  at::Device device_;
};

}  // namespace torch_safetensors::packages
