#include "tensors/python_save.h"

#include <ATen/Functions.h>

#include "tensors/byte_range.h"
#include "tensors/storage.h"

namespace torch_safetensors::tensors {
namespace {

/// Without reading what cannot be asked for it, which the checks of a save will name.
int64_t nbytes_or_zero(const at::Tensor& tensor) {
  return tensor.defined() && tensor.layout() == at::kStrided ? static_cast<int64_t>(tensor.nbytes()) : 0;
}

}  // namespace

std::vector<NamedTensor> to_named(const std::string& names, const std::vector<int64_t>& name_sizes,
                                  const WrappedTensors& tensors) {
  TORCH_CHECK_VALUE(tensors.size() == 1 && tensors.get(0).size() == name_sizes.size(),
                    "names and tensors do not belong together");
  const c10::List<at::Tensor> list = tensors.get(0);
  std::vector<NamedTensor> named;
  named.reserve(name_sizes.size());
  size_t begin = 0;
  for (size_t i = 0; i < name_sizes.size(); ++i) {
    const auto size = static_cast<size_t>(name_sizes[i]);
    TORCH_CHECK_VALUE(size <= names.size() - begin, "names are shorter than their sizes say");
    named.push_back({names.substr(begin, size), list.get(i)});
    begin += size;
  }
  return named;
}

std::string save_file_for_python(const std::string& filename, const std::string& names,
                                 const std::vector<int64_t>& name_sizes, const WrappedTensors& tensors,
                                 const std::optional<Metadata>& metadata, bool fsync, bool checksum,
                                 int64_t alignment) {
  return SavePlan(to_named(names, name_sizes, tensors), to_format(metadata), checksum, alignment)
      .write_to(filename, fsync);
}

at::Tensor save_small_for_python(const std::string& names, const std::vector<int64_t>& name_sizes,
                                 const WrappedTensors& tensors, const std::optional<Metadata>& metadata,
                                 int64_t limit) {
  std::vector<NamedTensor> named = to_named(names, name_sizes, tensors);
  int64_t room = limit;
  for (const NamedTensor& item : named) {
    room -= std::min(room, nbytes_or_zero(item.tensor));
  }
  at::Tensor bytes = at::empty({0}, at::kByte);
  if (room > 0) {
    const SavePlan plan(std::move(named), to_format(metadata), /*checksum=*/false);
    if (plan.size() <= static_cast<uint64_t>(limit)) {
      bytes = at::empty({static_cast<int64_t>(plan.size())}, at::kByte);
      plan.write_to(writable_bytes(bytes));
    }
  }
  return bytes;
}

std::vector<std::string> memory_faults(const WrappedTensors& tensors) {
  std::vector<std::string> faults;
  for (const c10::List<at::Tensor>& list : tensors) {
    for (const at::Tensor& tensor : list) {
      const bool is_known = tensor.defined() && has_memory(tensor);
      faults.push_back(is_known ? memory_fault(tensor).value_or("") : "");
    }
  }
  return faults;
}

void check_savable_for_python(const std::string& names, const std::vector<int64_t>& name_sizes,
                              const WrappedTensors& tensors) {
  check_savable(to_named(names, name_sizes, tensors), Overlap::kRefused);
}

void PythonSave::write_to(const at::Tensor& out) const {
  TORCH_CHECK_VALUE(out.is_cpu() && out.is_contiguous() && out.nbytes() == plan_.size(), "out has ",
                    out.nbytes(), " bytes but ", plan_.size(), " are to be written");
  plan_.write_to(writable_bytes(out));
}

}  // namespace torch_safetensors::tensors
