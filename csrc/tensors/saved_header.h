#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "format/checksum.h"
#include "format/serialize.h"
#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// Tensors as they will stand in the header; refers to them. F4 counts elements there and bytes in torch, so
/// that its shapes need memory of their own. The dtypes are ones of the format.
class Specs {
 public:
  explicit Specs(std::span<const NamedTensor> tensors);

  operator std::span<const format::TensorSpec>() const { return specs_; }

 private:
  std::vector<std::vector<int64_t>> unpacked_;
  std::vector<format::TensorSpec> specs_;
};

/// What a spec says, without the memory it may lie in. Throws ValueError (c10) for what is not dense, or of a
/// dtype that the format does not have.
std::vector<NamedTensor> on_meta(std::span<const NamedTensor> spec);

/// The header of a file with these tensors; `checksums` has one for each, or none. Throws ValueError (c10)
/// for what a file cannot hold.
format::SerializedHeader make_header(std::span<const format::TensorSpec> specs,
                                     const std::optional<format::Metadata>& metadata,
                                     const std::optional<std::vector<format::Checksum>>& checksums,
                                     int64_t alignment = 0);

}  // namespace torch_safetensors::tensors
