#pragma once

#include <torch/custom_class.h>

#include <optional>
#include <string_view>

#include "tensors/joined_names.h"
#include "tensors/load.h"

namespace torch_safetensors::tensors {

/// What a load gave, for the Python package to fetch in a second step. While it becomes Python objects, the
/// garbage collector goes over all of them again and again, and takes most of the time: so it is paused,
/// which it must not be for as long as reading a file may take.
class PythonLoad : public torch::CustomClassHolder {
 public:
  explicit PythonLoad(Loaded loaded) : loaded_(std::move(loaded)) {}

  /// Names, their separator (see JoinedNames) and tensors.
  using Parts = std::tuple<std::vector<std::string>, std::optional<std::string>, std::vector<at::Tensor>>;

  /// Hands it over, once.
  Parts take();

 private:
  Loaded loaded_;
};

/// Names and tensors of a few; of many none, and what they are to be taken from.
using PythonLoadResult = std::tuple<std::vector<std::string>, std::vector<at::Tensor>,
                                    std::optional<c10::intrusive_ptr<PythonLoad>>>;

/// `load_file` for the Python package; the numbers are those of TransferOptions.
PythonLoadResult python_load_file(const std::string& filename, at::Device device, std::string_view backend,
                                  std::optional<int64_t> threads, std::optional<int64_t> ring_size,
                                  bool verify, bool strict_index);

/// `load` for the Python package.
PythonLoadResult python_load(const at::Tensor& data, at::Device device, bool copy, bool verify);

}  // namespace torch_safetensors::tensors
