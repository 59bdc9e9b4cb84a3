#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/stableivalue_conversions.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <vector>

namespace torch_safetensors::stable {

using torch::stable::Device;
using torch::stable::Tensor;

/// The arguments of an operator, to be taken from its stack one by one, in the order of the schema. Each has
/// to be taken: that is what frees it.
///
/// Not by torch's own `TORCH_BOX`, which leaks every string that it converts (torch 2.11 to 2.13).
class Arguments {
 public:
  explicit Arguments(const StableIValue* stack) : next_(stack) {}

  std::string text();
  std::optional<std::string> optional_text();
  std::vector<std::string> texts();
  std::optional<std::vector<std::string>> optional_texts();
  Tensor tensor();
  std::vector<Tensor> tensors();
  Device device();
  bool flag();
  std::optional<int64_t> optional_integer();
  std::optional<std::vector<int64_t>> optional_integers();

 private:
  template <typename T>
  T take() {
    return torch::stable::detail::to<T>(*next_++);
  }

  const StableIValue* next_;
};

}  // namespace torch_safetensors::stable
