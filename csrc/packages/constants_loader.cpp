#include "packages/constants_loader.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/version.h>

#include <algorithm>

namespace torch_safetensors::packages {
namespace {

void synchronize_with(at::Device device) {
  if (!device.is_cpu()) {
    c10::impl::VirtualGuardImpl guard(device.type());
    guard.synchronizeDevice(device.has_index() ? device.index() : guard.getDevice().index());
  }
}

at::Device device_of(const std::unordered_map<std::string, std::string>& metadata, c10::DeviceIndex index) {
  at::Device device(metadata.at("AOTI_DEVICE_KEY"));
  if (!device.is_cpu()) {
    device.set_index(index);
  }
  return device;
}

}  // namespace

/// What was launched may still read them.
void LentConstants::wait_for_readers() noexcept {
  const auto elsewhere =
      std::ranges::find_if(tensors_, [](const auto& item) { return !item.second.is_cpu(); });
  if (elsewhere != tensors_.end()) {
    try {
      synchronize_with(elsewhere->second.device());
    } catch (const std::exception&) {
      // The device has stopped, and with it what reads them. Whoever uses it next hears of it.
    }
  }
}

LentConstants::~LentConstants() {
  wait_for_readers();
  for (auto& [name, tensor] : tensors_) {
    tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(c10::Storage(
        c10::Storage::use_byte_size_t(), 0, c10::DataPtr(nullptr, tensor.device()), nullptr, false));
  }
}

ConstantsLoader::ConstantsLoader(torch::inductor::AOTIModelPackageLoader& loader,
                                 c10::DeviceIndex device_index)
    : ConstantsLoader(loader, loader.get_metadata(), device_index) {}

ConstantsLoader::ConstantsLoader(torch::inductor::AOTIModelPackageLoader& loader,
                                 const std::unordered_map<std::string, std::string>& metadata,
                                 c10::DeviceIndex device_index)
    : loader_(loader),
      record_(metadata),
      names_(loader.get_constant_fqns()),
      device_(device_of(metadata, device_index)) {}

std::unique_ptr<WeightsFile> ConstantsLoader::open(const std::string& filename,
                                                   const ConstantsOptions& options) const {
  return std::make_unique<WeightsFile>(record_, names_, filename, options);
}

std::unique_ptr<LentConstants> ConstantsLoader::load(const WeightsFile& file, bool use_inactive) {
  NamedConstants tensors = file.read(device_);
  for (const auto& constant : record_.constants()) {
    // Another tensor over the record's storage: the loader's will lose theirs.
    tensors.emplace(constant.key(), constant.value().to(device_).detach());
  }
  auto constants = std::make_unique<LentConstants>(tensors);
  loader_.load_constants(tensors, use_inactive, /*check_full_update=*/true, /*user_managed=*/true);
  fold(use_inactive);
  return constants;
}

void ConstantsLoader::fold(bool use_inactive) {
  // Else the first run does it, which makes all others wait.
  bool is_needed = std::ranges::any_of(names_, is_folded);
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 13
  // There two first runs can wait for each other for ever, also where nothing is folded. Costs a warning.
  is_needed = true;
#endif
  if (is_needed) {
    loader_.get_runner()->run_const_fold(use_inactive);
  }
}

void ConstantsLoader::synchronize() const { synchronize_with(device_); }

}  // namespace torch_safetensors::packages
