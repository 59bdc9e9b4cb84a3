#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>

#include "format/dtype.h"

namespace torch_safetensors::shared {

using torch::headeronly::ScalarType;

/// torch's dtype for one of the format's; nothing for the F6 kinds, which torch cannot hold.
std::optional<ScalarType> to_scalar_type(format::DType dtype);

/// The format's dtype for one of torch's; nothing for what the format has no name for.
std::optional<format::DType> to_dtype(ScalarType scalar_type);

/// Elements of the format in one element of torch: 2 for F4, of which torch packs two into a byte.
int64_t packing(format::DType dtype);

}  // namespace torch_safetensors::shared
