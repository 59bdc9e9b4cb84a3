#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <memory>
#include <string>
#include <string_view>

#include "torch_safetensors/torch_safetensors.h"

namespace torch::inductor {
class AOTIModelPackageLoader;
}

/// AOTInductor packages (`.pt2`) whose weights live in a safetensors file: made in Python, by
/// `torch_safetensors.aoti.package`, which records in the package what it needs.
namespace torch_safetensors {

/// Which files a package may be given.
struct ConstantsOptions {
  /// Refuses tensors that neither the package nor the file it was made with knows.
  bool strict = true;
  /// Refuses other values than those it was made with; it must have been made with `digest=True`.
  bool strict_digest = false;
  /// As for `load_file`.
  std::string backend = "auto";
  /// The loader's, of the kind of device that the package was compiled for; -1 is the current one.
  c10::DeviceIndex device_index = -1;
};

/// Weights that a loader reads while it runs. Destroying them gives their memory back, so they must outlive
/// the runs that use them: until `swap` has put others in their place, or the loader is gone.
class TORCH_SAFETENSORS_API Constants {
 public:
  Constants(const Constants&) = delete;
  Constants& operator=(const Constants&) = delete;
  ~Constants();

 private:
  friend struct ConstantsAccess;
  struct Impl;
  explicit Constants(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Gives a package the weights of `filename`. On the CPU they are the mapped pages themselves, which
/// processes share; to another device they are loaded as by `load_file`. Names, dtypes and shapes are
/// compared with what the package records before anything is touched; SafetensorError lists all that is
/// missing, unexpected or different. Not while another thread runs the loader: use `swap` then.
[[nodiscard]] TORCH_SAFETENSORS_API std::unique_ptr<Constants> load_constants(
    torch::inductor::AOTIModelPackageLoader& loader, const std::string& filename,
    const ConstantsOptions& options = {});

/// The same while other threads run the loader: each run sees wholly the old or wholly the new weights, and
/// waits at most for runs that began before. When it returns, no run uses the old ones, which may go. If it
/// throws, they stay in service.
[[nodiscard]] TORCH_SAFETENSORS_API std::unique_ptr<Constants> swap(
    torch::inductor::AOTIModelPackageLoader& loader, const std::string& filename,
    const ConstantsOptions& options = {});

}  // namespace torch_safetensors
