#include "format/dtype.h"

#include <gtest/gtest.h>

namespace torch_safetensors::format {
namespace {

struct Expected {
  std::string_view name;
  uint64_t bits;
};

/// In the order of the enumerators, which is the order of saving backwards.
constexpr Expected kExpected[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
};

TEST(DType, HasTheNamesAndBitsOfTheFormatInItsOrder) {
  ASSERT_EQ(std::size(kExpected), kDTypeCount);
  for (size_t i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_name(dtype), kExpected[i].name);
    EXPECT_EQ(dtype_bits(dtype), kExpected[i].bits) << kExpected[i].name;
    EXPECT_EQ(find_dtype(kExpected[i].name), dtype) << kExpected[i].name;
  }
  EXPECT_EQ(dtype_name(DType::kU64), "U64");
}

TEST(DType, IsFoundByItsExactNameAlone) {
  using std::string_view_literals::operator""sv;
  for (const std::string_view name :
       {""sv, "f32"sv, "F32 "sv, " F32"sv, "F3"sv, "F32\0"sv, "F8"sv, "C128"sv}) {
    EXPECT_EQ(find_dtype(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace torch_safetensors::format
