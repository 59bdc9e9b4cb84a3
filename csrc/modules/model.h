#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "tensors/checkpoint.h"
#include "tensors/named_tensor.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::modules {

/// A model as load_model and save_model see it, whatever kind of module it is.
struct Model {
  /// For error messages.
  std::string class_name;
  /// Parameters (duplicates included) and persistent buffers, under the names of `state_dict()`.
  std::vector<tensors::NamedTensor> tensors;
};

/// What became of a load: the names, and what to warn of, or nothing.
struct FilledModel {
  LoadModelResult names;
  std::string warning;
};

/// Fills `model` from a file, as documented for the public `load_model`. Names in `may_be_missing` are never
/// missing. Warns of finite values that a conversion has made infinite.
[[nodiscard]] FilledModel load_model(const Model& model, const std::string& filename, bool strict,
                                     std::string_view backend, bool verify, bool strict_index);

/// The same from an open file, with the checks of `check_model`.
[[nodiscard]] FilledModel load_model(const Model& model, const tensors::Checkpoint& file, bool strict,
                                     const std::unordered_set<std::string>& may_be_missing, bool verify);

/// The checks of `load_model` alone, for a model whose tensors will be replaced rather than written to:
/// names, shapes, ties. Tensors may be on the meta device.
LoadModelResult check_model(const Model& model, const tensors::Checkpoint& file, bool strict,
                            const std::unordered_set<std::string>& may_be_missing);

/// Writes `model` to a file, as documented for the public `save_model`. Returns what to warn of, as SavePlan
/// does.
[[nodiscard]] std::string save_model(Model model, const std::string& filename,
                                     const std::optional<Metadata>& metadata, bool force_contiguous,
                                     bool fsync, bool checksum, int64_t alignment);

}  // namespace torch_safetensors::modules
