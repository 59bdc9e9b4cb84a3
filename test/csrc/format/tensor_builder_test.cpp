#include "format/tensor_builder.h"

#include <gtest/gtest.h>

#include "json_of.h"

namespace torch_safetensors::format {
namespace {

TEST(TensorBuilder, ReadsTensorsInTheOrderOfTheText) {
  const HeaderContent header = parse(R"({"b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},)"
                                     R"("a":{"data_offsets":[0,8],"shape":[],"dtype":"I64"}})");
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(name_of(header, 0), "b");
  EXPECT_EQ(header.tensors[0].dtype, DType::kF32);
  EXPECT_EQ(header.tensors[0].begin, 8u);
  EXPECT_EQ(header.tensors[0].end, 32u);
  EXPECT_EQ(name_of(header, 1), "a");
  EXPECT_EQ(header.tensors[1].dtype, DType::kI64);
  EXPECT_EQ(header.tensors[1].shape.size(), 0u);
  EXPECT_EQ(dims_of(header), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header.metadata, std::nullopt);
}

TEST(TensorBuilder, AcceptsShapesUpToTheLargestDimension) {
  EXPECT_EQ(dims_of(parse(JsonOf{.shape = "[0,4611686018427387904,9223372036854775807]"})),
            (std::vector<int64_t>{0, INT64_C(1) << 62, INT64_MAX}));
  std::string ones = "[1";
  for (int i = 1; i < 70; ++i) {
    ones += ",1";
  }
  EXPECT_EQ(dims_of(parse(JsonOf{.shape = ones + "]"})), std::vector<int64_t>(70, 1));
}

TEST(TensorBuilder, AcceptsOffsetsUpTo64Bits) {
  const HeaderContent header = parse(JsonOf{.data_offsets = "[18446744073709551615,0]"});
  EXPECT_EQ(header.tensors.at(0).begin, UINT64_MAX);
  EXPECT_EQ(header.tensors.at(0).end, 0u);
}

TEST(TensorBuilder, MustHaveAllFields) {
  EXPECT_EQ(refusal(R"({"w":{}})"), "6: tensor 'w': missing field `dtype`");
  EXPECT_EQ(refusal(R"({"w":{"shape":[4],"data_offsets":[0,4]}})"), "38: tensor 'w': missing field `dtype`");
  EXPECT_EQ(refusal(R"({"w":{"dtype":"U8","data_offsets":[0,4]}})"), "39: tensor 'w': missing field `shape`");
  EXPECT_EQ(refusal(R"({"w":{"dtype":"U8","shape":[4]}})"), "30: tensor 'w': missing field `data_offsets`");
  EXPECT_EQ(refusal(R"({"w":{"dtype":"U8","shape":[4],"Data_offsets":[0,4]}})"),
            "51: tensor 'w': missing field `data_offsets`");
}

TEST(TensorBuilder, MustNotHaveAFieldTwice) {
  EXPECT_EQ(refusal(JsonOf{.more = R"(,"dtype":"U8")"}), "59: tensor 'w': duplicate field `dtype`");
  EXPECT_EQ(refusal(JsonOf{.more = R"(,"shape":[4])"}), "59: tensor 'w': duplicate field `shape`");
  EXPECT_EQ(refusal(JsonOf{.more = R"(,"data_offsets":[0,4])"}),
            "66: tensor 'w': duplicate field `data_offsets`");
  EXPECT_EQ(refusal(JsonOf{.more = R"(,"dtyp\u0065":"U8")"}), "64: tensor 'w': duplicate field `dtype`");
}

TEST(TensorBuilder, MustHaveAKnownDType) {
  const std::string known =
      "', expected one of BOOL, F4, F6_E2M3, F6_E3M2, U8, I8, F8_E5M2, F8_E4M3, F8_E8M0, F8_E4M3FNUZ, "
      "F8_E5M2FNUZ, I16, U16, F16, BF16, I32, U32, F32, C64, F64, I64, U64";
  EXPECT_EQ(refusal(JsonOf{.dtype = R"("u8")"}), "18: tensor 'w': unknown dtype 'u8" + known);
  EXPECT_EQ(refusal(JsonOf{.dtype = R"("C128")"}), "20: tensor 'w': unknown dtype 'C128" + known);
  EXPECT_EQ(refusal(JsonOf{.dtype = R"("")"}), "16: tensor 'w': unknown dtype '" + known);
  EXPECT_EQ(refusal(JsonOf{.dtype = R"("U8\u0000")"}), "24: tensor 'w': unknown dtype 'U8\\x00" + known);
}

TEST(TensorBuilder, MustHaveDimensionsThatTorchCanHold) {
  // The reference takes them, and torch fails later.
  EXPECT_EQ(refusal(JsonOf{.shape = "[0,9223372036854775808]"}),
            "30: tensor 'w': shape: 9223372036854775808 is over the largest dimension, 9223372036854775807");
  EXPECT_EQ(refusal(JsonOf{.shape = "[0,18446744073709551615]"}),
            "30: tensor 'w': shape: 18446744073709551615 is over the largest dimension, 9223372036854775807");
}

TEST(TensorBuilder, MustHaveTwoDataOffsets) {
  EXPECT_EQ(refusal(JsonOf{.data_offsets = "[]"}),
            "47: tensor 'w': data_offsets: expected 2 numbers, found 0");
  EXPECT_EQ(refusal(JsonOf{.data_offsets = "[0]"}),
            "48: tensor 'w': data_offsets: expected 2 numbers, found 1");
  EXPECT_EQ(refusal(JsonOf{.data_offsets = "[0,4,8]"}),
            "52: tensor 'w': data_offsets: expected 2 numbers, found 3");
  EXPECT_EQ(refusal(JsonOf{.data_offsets = "4"}),
            "46: tensor 'w': data_offsets: expected an array of two unsigned integers, found a number");
  EXPECT_EQ(refusal(JsonOf{.data_offsets = "null"}),
            "50: tensor 'w': data_offsets: expected an array of two unsigned integers, found null");
}

TEST(TensorBuilder, NamesTensorsAndKeysReadably) {
  EXPECT_EQ(refusal("{\"\u4E2D\\u0000\":1}"), "13: tensor '\u4E2D\\x00': expected an object, found a number");
  EXPECT_EQ(refusal("{\"" + std::string(300, 'a') + "\":1}"),
            "304: tensor '" + std::string(100, 'a') + "[...]" + std::string(100, 'a') +
                "' (300 bytes): expected an object, found a number");
}

}  // namespace
}  // namespace torch_safetensors::format
