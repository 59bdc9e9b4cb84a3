#include "tensors/saved_header.h"

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include "format/text.h"
#include "tensors/check_savable.h"
#include "tensors/checksums.h"
#include "tensors/scalar_type.h"
#include "tensors/uninitialized.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::tensors {

Specs::Specs(std::span<const NamedTensor> tensors) {
  unpacked_.reserve(tensors.size());
  specs_.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const format::DType dtype = *to_dtype(tensor.scalar_type());
    std::span<const int64_t> shape(tensor.sizes().data(), tensor.sizes().size());
    if (packing(dtype) > 1 && !shape.empty()) {
      auto& sizes = unpacked_.emplace_back(shape.begin(), shape.end());
      sizes.back() *= packing(dtype);
      shape = sizes;
    }
    specs_.push_back({name, dtype, shape});
  }
}

std::vector<NamedTensor> on_meta(std::span<const NamedTensor> spec) {
  std::vector<NamedTensor> result;
  result.reserve(spec.size());
  for (const NamedTensor& named : spec) {
    const auto& [name, tensor] = named;
    TORCH_CHECK_VALUE(tensor.defined() && tensor.layout() == at::kStrided, "tensor ", format::in_quotes(name),
                      ": is not dense, and the format holds dense tensors; call .to_dense() first");
    check_initialized(named);
    check_dtype(named);
    result.push_back({name, at::empty(tensor.sizes(), at::device(at::kMeta).dtype(tensor.dtype()))});
  }
  return result;
}

format::SerializedHeader make_header(std::span<const format::TensorSpec> specs,
                                     const std::optional<format::Metadata>& metadata,
                                     const std::optional<std::vector<format::Checksum>>& checksums,
                                     int64_t alignment) {
  try {
    const std::optional<format::Metadata> all = with_checksums(metadata, specs, checksums);
    return format::serialize_header(specs, all ? &*all : nullptr, alignment);
  } catch (const SafetensorError& error) {
    // What a file cannot hold is here an argument that is wrong.
    C10_THROW_ERROR(ValueError, error.what());
  }
}

}  // namespace torch_safetensors::tensors
