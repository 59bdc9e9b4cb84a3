#include "format/tensor_size.h"

#include <gtest/gtest.h>

#include <vector>

#include "error_of.h"

namespace torch_safetensors::format {
namespace {

using Shape = std::vector<int64_t>;

TEST(TensorSize, IsTheProductOfTheShapeTimesTheBits) {
  EXPECT_EQ(tensor_nbytes(DType::kF32, {}), 4u);
  EXPECT_EQ(tensor_nbytes(DType::kF32, Shape{2, 3}), 24u);
  EXPECT_EQ(tensor_nbytes(DType::kC64, Shape{3}), 24u);
  EXPECT_EQ(tensor_nbytes(DType::kBool, Shape{7}), 7u);
  EXPECT_EQ(tensor_nbytes(DType::kU8, Shape(70, 1)), 1u);
  EXPECT_EQ(tensor_nbytes(DType::kU8, Shape{INT64_C(1) << 60}), UINT64_C(1) << 60);
}

TEST(TensorSize, IsZeroWithAZeroAnywhere) {
  EXPECT_EQ(tensor_nbytes(DType::kF32, Shape{0}), 0u);
  EXPECT_EQ(tensor_nbytes(DType::kU64, Shape{0, INT64_C(1) << 62, INT64_MAX}), 0u);
  EXPECT_EQ(tensor_nbytes(DType::kF4, Shape{3, 0}), 0u);
}

TEST(TensorSize, OfSubByteTypesCountsBits) {
  EXPECT_EQ(tensor_nbytes(DType::kF4, Shape{2, 4}), 4u);
  EXPECT_EQ(tensor_nbytes(DType::kF6E2M3, Shape{4}), 3u);
  EXPECT_EQ(tensor_nbytes(DType::kF6E3M2, Shape{2, 2}), 3u);
}

TEST(TensorSize, MustEndAtAByteBoundary) {
  EXPECT_EQ(error_of([] { tensor_nbytes(DType::kF4, {}); }),
            "F4 [] takes 4 bits, which do not end at a byte boundary");
  EXPECT_EQ(error_of([] { tensor_nbytes(DType::kF4, Shape{3, 3}); }),
            "F4 [3, 3] takes 36 bits, which do not end at a byte boundary");
  EXPECT_EQ(error_of([] { tensor_nbytes(DType::kF6E2M3, Shape{3}); }),
            "F6_E2M3 [3] takes 18 bits, which do not end at a byte boundary");
}

TEST(TensorSize, MustFitIn64BitsAlsoInBits) {
  EXPECT_EQ(error_of([] { tensor_nbytes(DType::kU8, Shape{INT64_MAX, 3}); }),
            "overflow: the size of U8 [9223372036854775807, 3] does not fit in 64 bits");
  EXPECT_EQ(error_of([] { tensor_nbytes(DType::kU8, Shape{INT64_C(1) << 61}); }),
            "overflow: the size of U8 [2305843009213693952] does not fit in 64 bits");
}

TEST(TensorSize, OverflowsBeforeALaterZeroIsSeen) {
  EXPECT_EQ(error_of([] { tensor_nbytes(DType::kU8, Shape{INT64_MAX, INT64_MAX, 0}); }),
            "overflow: the size of U8 [9223372036854775807, 9223372036854775807, 0] does not fit in 64 bits");
}

}  // namespace
}  // namespace torch_safetensors::format
