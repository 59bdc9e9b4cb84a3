#include "tensors/python_load.h"

namespace torch_safetensors::tensors {
namespace {

/// The second step costs about what the collector does for so many objects.
constexpr size_t kMany = 1000;

PythonLoadResult in_steps(NamesAndTensors loaded) {
  auto& [names, tensors] = loaded;
  if (names.size() < kMany) {
    return {std::move(names), std::move(tensors), std::nullopt};
  }
  return {{}, {}, c10::make_intrusive<PythonLoad>(std::move(loaded))};
}

}  // namespace

PythonLoadResult python_load_file(const std::string& filename, at::Device device, std::string_view backend) {
  return in_steps(load_file_lists(filename, device, backend));
}

PythonLoadResult python_load(const at::Tensor& data, at::Device device, bool copy) {
  return in_steps(load_lists(data, device, copy));
}

}  // namespace torch_safetensors::tensors
