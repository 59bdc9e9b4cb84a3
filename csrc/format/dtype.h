#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace torch_safetensors::format {

/// The element types of the format, in the order the reference declares them:
/// files are written with the highest first, so that larger elements stay aligned.
enum class DType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

inline constexpr size_t kDTypeCount = 22;

/// The name that stands in a header, e.g. `F8_E4M3`.
std::string_view dtype_name(DType dtype);

/// Bits of one element; F4 has 4 and the F6 kinds have 6.
uint64_t dtype_bits(DType dtype);

/// The dtype of that exact, case-sensitive name; nothing if the format has none.
std::optional<DType> find_dtype(std::string_view name);

}  // namespace torch_safetensors::format
