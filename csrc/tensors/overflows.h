#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <string>
#include <vector>

namespace torch_safetensors::tensors {

/// Finite values that conversions to other dtypes lose, since these end before them: they become infinite, or
/// where a dtype has no infinity NaN or its largest number. Collected over a call, for one warning.
class Overflows : public torch::CustomClassHolder {
 public:
  /// Looks for them in `from`, which is or will be converted to `to`. Reads it only where `to` has the
  /// smaller range; nothing on the meta device. A tensor may come in pieces, one after the other.
  void add(const std::string& name, const at::Tensor& from, c10::ScalarType to);

  /// What to warn of, with counts and names; empty where nothing was lost.
  std::string warning(const std::string& source) const;

 private:
  struct Lost {
    std::string name;
    int64_t values;
    c10::ScalarType from;
    c10::ScalarType to;
  };

  std::vector<Lost> lost_;
};

}  // namespace torch_safetensors::tensors
