#include "shared/scalar_type.h"

#include <array>

namespace torch_safetensors::shared {
namespace {

using format::DType;
using torch::headeronly::ScalarType;

struct Pair {
  DType dtype;
  ScalarType scalar_type;
};

constexpr std::array kPairs{
    Pair{DType::kBool, ScalarType::Bool},
    Pair{DType::kF4, ScalarType::Float4_e2m1fn_x2},
    Pair{DType::kU8, ScalarType::Byte},
    Pair{DType::kI8, ScalarType::Char},
    Pair{DType::kF8E5M2, ScalarType::Float8_e5m2},
    Pair{DType::kF8E4M3, ScalarType::Float8_e4m3fn},
    Pair{DType::kF8E8M0, ScalarType::Float8_e8m0fnu},
    Pair{DType::kF8E4M3FNUZ, ScalarType::Float8_e4m3fnuz},
    Pair{DType::kF8E5M2FNUZ, ScalarType::Float8_e5m2fnuz},
    Pair{DType::kI16, ScalarType::Short},
    Pair{DType::kU16, ScalarType::UInt16},
    Pair{DType::kF16, ScalarType::Half},
    Pair{DType::kBF16, ScalarType::BFloat16},
    Pair{DType::kI32, ScalarType::Int},
    Pair{DType::kU32, ScalarType::UInt32},
    Pair{DType::kF32, ScalarType::Float},
    Pair{DType::kC64, ScalarType::ComplexFloat},
    Pair{DType::kF64, ScalarType::Double},
    Pair{DType::kI64, ScalarType::Long},
    Pair{DType::kU64, ScalarType::UInt64},
};

}  // namespace

std::optional<ScalarType> to_scalar_type(DType dtype) {
  for (const Pair& pair : kPairs) {
    if (pair.dtype == dtype) {
      return pair.scalar_type;
    }
  }
  return std::nullopt;
}

std::optional<DType> to_dtype(ScalarType scalar_type) {
  for (const Pair& pair : kPairs) {
    if (pair.scalar_type == scalar_type) {
      return pair.dtype;
    }
  }
  return std::nullopt;
}

int64_t packing(DType dtype) { return dtype == DType::kF4 ? 2 : 1; }

}  // namespace torch_safetensors::shared
