#include "packages/constants_loader.h"

namespace torch_safetensors {

struct Constants::Impl {
  std::unique_ptr<packages::LentConstants> constants;
};

Constants::Constants(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Constants::~Constants() = default;

struct ConstantsAccess {
  static std::unique_ptr<Constants> load(packages::ConstantsLoader& loader, const std::string& filename,
                                         const ConstantsOptions& options, bool use_inactive) {
    auto impl = std::make_unique<Constants::Impl>();
    impl->constants = loader.load(*loader.open(filename, options), use_inactive);
    return std::unique_ptr<Constants>(new Constants(std::move(impl)));
  }
};

std::unique_ptr<Constants> load_constants(torch::inductor::AOTIModelPackageLoader& loader,
                                          const std::string& filename, const ConstantsOptions& options) {
  packages::ConstantsLoader constants(loader, options.device_index);
  return ConstantsAccess::load(constants, filename, options, /*use_inactive=*/false);
}

std::unique_ptr<Constants> swap(torch::inductor::AOTIModelPackageLoader& loader, const std::string& filename,
                                const ConstantsOptions& options) {
  packages::ConstantsLoader constants(loader, options.device_index);
  std::unique_ptr<Constants> loaded =
      ConstantsAccess::load(constants, filename, options, /*use_inactive=*/true);
  constants.swap();
  return loaded;
}

}  // namespace torch_safetensors
