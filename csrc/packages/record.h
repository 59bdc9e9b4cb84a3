#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "format/header.h"
#include "tensors/checkpoint.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::packages {

/// What a package records of its weights, in its metadata (torch_safetensors/aoti.py writes it):
/// `torch_safetensors.weights` is the JSON of the header of the file it was made with, whose own metadata has
/// the other names of tied weights (`dropped -> kept`) and, where asked for, checksums;
/// `torch_safetensors.constants` is a safetensors file, in hexadecimal digits, of what has no name in a
/// model's `state_dict`.
class Record {
 public:
  /// Throws SafetensorError where there is none, or not what this version writes.
  explicit Record(const std::unordered_map<std::string, std::string>& package_metadata);

  /// Tensors of the file that the package was made with.
  const format::Header& weights() const { return weights_; }

  /// Values that come with the package, by the names it has for them.
  const TensorDict& constants() const { return constants_; }

  /// The weight that the package calls `name`: under that name, or the one it was saved under. Null if there
  /// is none.
  const format::TensorEntry* weight(std::string_view name) const;

  /// The tensor of `file` that has this weight, under any of its names. Null if there is none.
  const format::TensorEntry* find_in(const tensors::Checkpoint& file,
                                     const format::TensorEntry& weight) const;

  /// Throws SafetensorError unless the package records checksums of its weights.
  void require_checksums() const;

  /// Whether a file may have a tensor of that name.
  bool knows(std::string_view name) const;

 private:
  format::Header weights_;
  TensorDict constants_;
  /// By another name of a weight, the one it was saved under; and the other way round.
  std::unordered_map<std::string, std::string> kept_;
  std::unordered_multimap<std::string, std::string> dropped_;
};

}  // namespace torch_safetensors::packages
