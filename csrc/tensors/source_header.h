#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "format/header.h"
#include "tensors/joined_names.h"

namespace torch_safetensors::tensors {

/// The length of the header of `source`; `prefix`, 1-D uint8, holds its first bytes. Nothing for the size of
/// a source that does not know it. Throws SafetensorError.
int64_t header_size(const std::string& source, const at::Tensor& prefix, std::optional<int64_t> file_size);

/// `torch.classes.safetensors._SourceHeader`: the header of what is no file of the operating system, whose
/// bytes the Python package brings.
class SourceHeader : public torch::CustomClassHolder {
 public:
  /// `source` as it stands in front of messages; `json`, 1-D uint8, the bytes between the length field and
  /// the data. Without a `data_size`, `check_data_size` must follow. Throws SafetensorError.
  SourceHeader(std::string source, const at::Tensor& json, std::optional<int64_t> data_size);

  const std::string& source() const { return source_; }
  const format::Header& header() const { return header_; }

  /// The names of the tensors, in the order of the data.
  JoinedNames keys() const;

  /// Bytes of those tensors. Throws SafetensorError for a name that is not there.
  int64_t nbytes(const std::vector<std::string>& names) const;

  /// Where the data begin in the source, and where the tensors end.
  int64_t data_begin() const { return data_begin_; }
  int64_t end() const;

  /// Whether the header was held to the size of its source: one that claims more than there is has no effect
  /// on memory.
  bool is_held_to_size() const { return is_held_to_size_; }

  /// Throws SafetensorError unless the tensors cover exactly so many bytes of data.
  void check_data_size(int64_t data_size) const;

 private:
  std::string source_;
  format::Header header_;
  int64_t data_begin_;
  bool is_held_to_size_;
};

}  // namespace torch_safetensors::tensors
