#include "format/checked.h"

#include <gtest/gtest.h>

namespace torch_safetensors::format {
namespace {

TEST(CheckedAdd, RefusesWhatDoesNotFit) {
  EXPECT_EQ(checked_add(0, 0), 0u);
  EXPECT_EQ(checked_add(UINT64_MAX, 0), UINT64_MAX);
  EXPECT_EQ(checked_add(UINT64_MAX - 1, 1), UINT64_MAX);
  EXPECT_EQ(checked_add(UINT64_MAX, 1), std::nullopt);
  EXPECT_EQ(checked_add(1, UINT64_MAX), std::nullopt);
  EXPECT_EQ(checked_add(UINT64_MAX, UINT64_MAX), std::nullopt);
}

TEST(CheckedMul, RefusesWhatDoesNotFit) {
  EXPECT_EQ(checked_mul(0, UINT64_MAX), 0u);
  EXPECT_EQ(checked_mul(UINT64_MAX, 0), 0u);
  EXPECT_EQ(checked_mul(UINT64_MAX, 1), UINT64_MAX);
  EXPECT_EQ(checked_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1), 0xFFFFFFFF00000000u);
  EXPECT_EQ(checked_mul(UINT64_C(1) << 32, UINT64_C(1) << 32), std::nullopt);
  EXPECT_EQ(checked_mul(UINT64_MAX, 2), std::nullopt);
}

}  // namespace
}  // namespace torch_safetensors::format
