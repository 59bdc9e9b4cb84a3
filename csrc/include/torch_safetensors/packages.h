#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <memory>
#include <string>
#include <vector>

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

/// A package and the weights it runs with. Safe from several threads: they may run it while one swaps.
class TORCH_SAFETENSORS_API PackagedModel {
 public:
  /// Loads a package and gives it the weights of a file. On the CPU they are the mapped pages themselves,
  /// which processes share; to another device they are loaded as by `load_file`. Names, dtypes and shapes are
  /// compared with what the package records before anything is touched: SafetensorError lists all that is
  /// missing, unexpected or different. So many threads as it has runners can run at once; others wait.
  PackagedModel(const std::string& package, const std::string& weights, const ConstantsOptions& options = {},
                size_t num_runners = 1);
  ~PackagedModel();

  /// Tensors in, tensors out, in the order of the flattened arguments and results. `stream` as for torch's
  /// loader. Throws c10::Error, also where a swap in place left no weights.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, void* stream = nullptr);

  /// Puts the weights of another file in place, on the device of the first. Each run sees wholly the old or
  /// wholly the new ones; runs that begin wait for those that have begun, for no longer. The file is checked
  /// first, and if anything fails, the old weights stay. Both are in memory for a while; but `in_place`
  /// overwrites copies (on devices, with "pread") tensor by tensor, while runs wait. If reading fails in the
  /// middle of that, the old ones are read again, and only if this fails, too, runs throw.
  void swap(const std::string& weights, const ConstantsOptions& options = {}, bool in_place = false);

  /// The device it runs on: of the kind it was compiled for.
  at::Device device() const;

  /// How arguments and results are flattened, as torch writes it.
  std::vector<std::string> call_spec() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Weights in a loader of your own. Destroying them gives their memory back, so they must outlive the runs
/// that use them: until `swap` has put others in their place, or the loader is gone.
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

/// Gives a loader weights as `PackagedModel` does. Not while another thread runs it.
[[nodiscard]] TORCH_SAFETENSORS_API std::unique_ptr<Constants> load_constants(
    torch::inductor::AOTIModelPackageLoader& loader, const std::string& filename,
    const ConstantsOptions& options = {});

/// Swaps as `PackagedModel` does, with a difference: it returns in a moment in which no run is under way.
/// torch's lock lets runs pass a swap that waits, so with runs that always overlap that moment never comes.
[[nodiscard]] TORCH_SAFETENSORS_API std::unique_ptr<Constants> swap(
    torch::inductor::AOTIModelPackageLoader& loader, const std::string& filename,
    const ConstantsOptions& options = {});

}  // namespace torch_safetensors
