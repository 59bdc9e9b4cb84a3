#include "tensors/saved_header.h"

#include <c10/util/Exception.h>

#include "tensors/checksums.h"
#include "tensors/scalar_type.h"
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
