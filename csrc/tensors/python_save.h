#pragma once

#include <torch/custom_class.h>

#include "tensors/save_plan.h"

namespace torch_safetensors::tensors {

// Saves in the forms that the Python package calls them in, chosen for how fast torch converts them: names
// stand one behind the other in a text, and `name_sizes` says how many bytes each has, since a list of
// strings takes several times as long.

/// The only element has the tensors. The dispatcher looks into a plain list of them, and one on the meta
/// device, or of a subclass, would take the call away from here.
using WrappedTensors = c10::List<c10::List<at::Tensor>>;

/// Throws ValueError (c10) where the three do not belong together.
std::vector<NamedTensor> to_named(const std::string& names, const std::vector<int64_t>& name_sizes,
                                  const WrappedTensors& tensors);

/// `save_file`. Returns what is to be warned of, since Python raises a warning in another way than torch.
std::string save_file_for_python(const std::string& filename, const std::string& names,
                                 const std::vector<int64_t>& name_sizes, const WrappedTensors& tensors,
                                 const std::optional<Metadata>& metadata, bool fsync, bool checksum,
                                 int64_t alignment);

/// `save`, or nothing where that would be more than `limit` bytes.
at::Tensor save_small_for_python(const std::string& names, const std::vector<int64_t>& name_sizes,
                                 const WrappedTensors& tensors, const std::optional<Metadata>& metadata,
                                 int64_t limit);

/// What is wrong with the memory of each tensor, in words that follow its name (byte_range.h); nothing where
/// all is well, or where it has no memory of its own.
std::vector<std::string> memory_faults(const WrappedTensors& tensors);

/// Throws what `save_file` of these would, but for what concerns the header.
void check_savable_for_python(const std::string& names, const std::vector<int64_t>& name_sizes,
                              const WrappedTensors& tensors);

/// A `save` in two steps: the caller asks for the size, makes one `bytes` object of it, and has that filled,
/// where `save` would cost a second copy of everything.
class PythonSave : public torch::CustomClassHolder {
 public:
  PythonSave(const std::string& names, const std::vector<int64_t>& name_sizes, const WrappedTensors& tensors,
             const std::optional<Metadata>& metadata, bool checksum)
      : plan_(to_named(names, name_sizes, tensors), to_format(metadata), checksum) {}

  int64_t size() const { return static_cast<int64_t>(plan_.size()); }

  /// Fills `out`, a contiguous uint8 tensor of `size()` elements.
  void write_to(const at::Tensor& out) const;

 private:
  SavePlan plan_;
};

}  // namespace torch_safetensors::tensors
