#include "format/tensor_size.h"

#include "format/checked.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {

uint64_t tensor_nbytes(DType dtype, std::span<const int64_t> shape) {
  std::optional<uint64_t> count = 1;
  for (const int64_t size : shape) {
    count = checked_mul(*count, static_cast<uint64_t>(size));
    if (!count) {
      break;
    }
  }
  const auto bits = count ? checked_mul(*count, dtype_bits(dtype)) : std::nullopt;
  if (!bits) {
    throw SafetensorError("overflow: the size of " + describe(dtype, shape) + " does not fit in 64 bits");
  }
  if (*bits % 8 != 0) {
    throw SafetensorError(describe(dtype, shape) + " takes " + std::to_string(*bits) +
                          " bits, which do not end at a byte boundary");
  }
  return *bits / 8;
}

}  // namespace torch_safetensors::format
