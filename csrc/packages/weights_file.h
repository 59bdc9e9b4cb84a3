#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "packages/record.h"
#include "tensors/checkpoint.h"
#include "torch_safetensors/packages.h"

namespace torch_safetensors::packages {

/// Tensors by the names that a package has for them.
using NamedConstants = std::unordered_map<std::string, at::Tensor>;

/// Whether the package computes this constant itself from others, by the names that Inductor gives to such
/// (torch/_inductor/compile_fx.py).
bool is_folded(std::string_view name);

/// A file that has the weights of a package.
class WeightsFile {
 public:
  /// Opens `filename` for a package that has constants of these names. Throws SafetensorError with all that
  /// is missing, unexpected or different.
  WeightsFile(const Record& record, const std::vector<std::string>& names, const std::string& filename,
              const ConstantsOptions& options);

  /// The weights, on `device`.
  NamedConstants read(at::Device device) const;

  /// The same into tensors that `read` of such a file returned; each is overwritten where it lies.
  void read_into(const NamedConstants& constants) const;

  /// Whether `read` maps the file instead of copying from it.
  bool is_mapped_on(at::Device device) const;

 private:
  /// A weight's name in the package, what that records of it, and where the file has it.
  struct Weight {
    std::string name;
    const format::TensorEntry* recorded;
    const format::TensorEntry* found;
  };

  static std::vector<Weight> match(const Record& record, const std::vector<std::string>& names,
                                   const tensors::Checkpoint& file, bool strict);
  void require_digest(const Record& record) const;
  std::vector<const format::TensorEntry*> entries() const;

  tensors::Checkpoint file_;
  std::vector<Weight> weights_;
};

}  // namespace torch_safetensors::packages
