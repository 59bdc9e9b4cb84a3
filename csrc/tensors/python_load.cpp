#include "tensors/python_load.h"

namespace torch_safetensors::tensors {
namespace {

/// The second step costs about what the collector does for so many objects.
constexpr size_t kMany = 1000;

PythonLoadResult in_steps(Loaded loaded) {
  if (loaded.tensors.size() < kMany) {
    return {{loaded.names.begin(), loaded.names.end()}, std::move(loaded.tensors), std::nullopt};
  }
  return {{}, {}, c10::make_intrusive<PythonLoad>(std::move(loaded))};
}

}  // namespace

PythonLoad::Parts PythonLoad::take() {
  auto [names, separator] = join_names(loaded_.names);
  return {std::move(names), std::move(separator), std::move(loaded_.tensors)};
}

PythonLoadResult python_load_file(const std::string& filename, at::Device device, std::string_view backend,
                                  std::optional<int64_t> threads, std::optional<int64_t> ring_size,
                                  bool verify, bool strict_index) {
  return in_steps(load_all(filename, device, backend, {threads, ring_size}, verify, strict_index));
}

PythonLoadResult python_load(const at::Tensor& data, at::Device device, bool copy, bool verify) {
  return in_steps(load_all(data, device, copy, verify));
}

}  // namespace torch_safetensors::tensors
