#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "packages/constants.h"

namespace torch_safetensors {

/// Tensors that a loader has the addresses of. It keeps a reference to each for ever (`user_managed` handles
/// are never deleted, in torch 2.11 to 2.13), so that only their storages can be given back.
struct Constants::Impl {
  std::unordered_map<std::string, at::Tensor> tensors;

  ~Impl() {
    for (auto& [name, tensor] : tensors) {
      if (!tensor.is_cpu()) {
        // What was launched may still read it.
        c10::impl::VirtualGuardImpl(tensor.device().type()).synchronizeDevice(tensor.device().index());
        break;
      }
    }
    for (auto& [name, tensor] : tensors) {
      tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(c10::Storage(
          c10::Storage::use_byte_size_t(), 0, c10::DataPtr(nullptr, tensor.device()), nullptr, false));
    }
  }
};

Constants::Constants(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Constants::~Constants() = default;

struct ConstantsAccess {
  static std::unique_ptr<Constants> load(torch::inductor::AOTIModelPackageLoader& loader,
                                         const std::string& filename, const ConstantsOptions& options,
                                         bool use_inactive) {
    const auto metadata = loader.get_metadata();
    const packages::Record record(metadata);
    auto impl = std::make_unique<Constants::Impl>();
    at::Device device(metadata.at("AOTI_DEVICE_KEY"));
    if (!device.is_cpu()) {
      device.set_index(options.device_index);
    }
    impl->tensors = packages::read_constants(record, loader.get_constant_fqns(), filename, device, options);
    loader.load_constants(impl->tensors, use_inactive, /*check_full_update=*/true, /*user_managed=*/true);
    // Else the first run does it, which makes all others wait; and with torch 2.11 two of them can wait for
    // each other for ever.
    loader.get_runner()->run_const_fold(use_inactive);
    return std::unique_ptr<Constants>(new Constants(std::move(impl)));
  }
};

std::unique_ptr<Constants> load_constants(torch::inductor::AOTIModelPackageLoader& loader,
                                          const std::string& filename, const ConstantsOptions& options) {
  return ConstantsAccess::load(loader, filename, options, /*use_inactive=*/false);
}

std::unique_ptr<Constants> swap(torch::inductor::AOTIModelPackageLoader& loader, const std::string& filename,
                                const ConstantsOptions& options) {
  std::unique_ptr<Constants> constants =
      ConstantsAccess::load(loader, filename, options, /*use_inactive=*/true);
  loader.get_runner()->swap_constant_buffer();
  return constants;
}

}  // namespace torch_safetensors
