#include "shared/scalar_type.h"

#include <c10/core/ScalarType.h>
#include <gtest/gtest.h>

#include <set>

namespace torch_safetensors::shared {
namespace {

using format::DType;

bool is_f6(DType dtype) { return dtype == DType::kF6E2M3 || dtype == DType::kF6E3M2; }

TEST(ScalarType, AgreesWithTorchOnTheSizeOfEveryDtype) {
  for (size_t i = 0; i < format::kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    const auto scalar_type = to_scalar_type(dtype);
    ASSERT_EQ(scalar_type.has_value(), !is_f6(dtype)) << format::dtype_name(dtype);
    if (scalar_type) {
      EXPECT_EQ(c10::elementSize(*scalar_type) * 8, format::dtype_bits(dtype) * packing(dtype))
          << format::dtype_name(dtype);
    }
  }
}

TEST(ScalarType, ComesBackFromEveryDtype) {
  std::set<ScalarType> seen;
  for (size_t i = 0; i < format::kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (const auto scalar_type = to_scalar_type(dtype)) {
      EXPECT_EQ(to_dtype(*scalar_type), dtype) << format::dtype_name(dtype);
      EXPECT_TRUE(seen.insert(*scalar_type).second) << format::dtype_name(dtype);
    }
  }
}

TEST(ScalarType, HasNoNameForWhatTheFormatHasNot) {
  for (const ScalarType type : {ScalarType::ComplexDouble, ScalarType::ComplexHalf, ScalarType::QInt8,
                                ScalarType::QUInt8, ScalarType::Undefined}) {
    EXPECT_EQ(to_dtype(type), std::nullopt) << c10::toString(type);
  }
}

TEST(ScalarType, OnlyF4IsPacked) {
  EXPECT_EQ(packing(DType::kF4), 2);
  EXPECT_EQ(packing(DType::kU8), 1);
  EXPECT_EQ(to_scalar_type(DType::kF8E4M3), ScalarType::Float8_e4m3fn);
  EXPECT_EQ(to_scalar_type(DType::kF8E4M3FNUZ), ScalarType::Float8_e4m3fnuz);
}

}  // namespace
}  // namespace torch_safetensors::shared
