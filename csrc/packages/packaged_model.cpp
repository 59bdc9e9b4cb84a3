#include <c10/core/InferenceMode.h>

#include <mutex>
#include <shared_mutex>

#include "packages/constants_loader.h"
#include "packages/writer_first_mutex.h"

namespace torch_safetensors {

using packages::WeightsFile;

struct PackagedModel::Impl {
  Impl(const std::string& package, size_t num_runners, c10::DeviceIndex device_index)
      : loader(package, "model", /*run_single_threaded=*/false, num_runners, device_index),
        weights(loader, device_index) {}

  void load(const std::string& filename, const ConstantsOptions& options) {
    std::unique_ptr<WeightsFile> file = weights.open(filename, options);
    constants = weights.load(*file, /*use_inactive=*/false);
    keep(std::move(file));
  }

  /// Beside the old ones, which serve meanwhile.
  void swap(std::unique_ptr<WeightsFile> file) {
    std::unique_ptr<packages::LentConstants> next = weights.load(*file, /*use_inactive=*/true);
    {
      const std::lock_guard no_runs(running);
      weights.swap();
      has_weights = true;
    }
    constants = std::move(next);
    keep(std::move(file));
  }

  /// Over the old ones.
  void overwrite(std::unique_ptr<WeightsFile> file) {
    const std::lock_guard no_runs(running);
    weights.synchronize();
    try {
      has_weights = false;
      fill(*file);
    } catch (...) {
      restore();
      throw;
    }
    keep(std::move(file));
  }

  /// If this fails, too, there are no weights, as `run` will say.
  void restore() noexcept {
    try {
      fill(*source);
    } catch (const std::exception&) {
    }
  }

  void fill(const WeightsFile& file) {
    const c10::InferenceMode inference;  // where they may have been made
    file.read_into(constants->tensors());
    weights.fold(/*use_inactive=*/false);
    has_weights = true;
  }

  /// What copies were made from is kept open: from there they can be restored.
  void keep(std::unique_ptr<WeightsFile> file) {
    source = file->is_mapped_on(weights.device()) ? nullptr : std::move(file);
  }

  std::unique_ptr<packages::LentConstants> constants;  // outlives the loader
  torch::inductor::AOTIModelPackageLoader loader;
  packages::ConstantsLoader weights;
  std::unique_ptr<WeightsFile> source;
  bool has_weights = true;
  packages::WriterFirstMutex running;
  std::mutex swapping;
};

PackagedModel::PackagedModel(const std::string& package, const std::string& weights,
                             const ConstantsOptions& options, size_t num_runners)
    : impl_(std::make_unique<Impl>(package, num_runners, options.device_index)) {
  impl_->load(weights, options);
}

PackagedModel::~PackagedModel() = default;

std::vector<at::Tensor> PackagedModel::run(const std::vector<at::Tensor>& inputs, void* stream) {
  const std::shared_lock lock(impl_->running);
  TORCH_CHECK(impl_->has_weights,
              "a swap in place failed, and so did reading the old weights again: swap others in");
  return impl_->loader.run(inputs, stream);
}

void PackagedModel::swap(const std::string& weights, const ConstantsOptions& options, bool in_place) {
  const std::lock_guard lock(impl_->swapping);
  std::unique_ptr<WeightsFile> file = impl_->weights.open(weights, options);
  if (in_place && impl_->source && !file->is_mapped_on(impl_->weights.device())) {
    impl_->overwrite(std::move(file));
  } else {
    impl_->swap(std::move(file));
  }
}

at::Device PackagedModel::device() const { return impl_->weights.device(); }

std::vector<std::string> PackagedModel::call_spec() const { return impl_->loader.get_call_spec(); }

}  // namespace torch_safetensors
