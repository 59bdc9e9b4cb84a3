#include "format/header.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "error_of.h"
#include "json_of.h"

namespace torch_safetensors::format {
namespace {

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, uint64_t begin,
                  uint64_t end) {
  return '"' + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[)" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

std::string header_refusal(const std::string& json, uint64_t data_size) {
  return error_of([&] { parse_header(json, data_size); });
}

std::vector<std::string_view> names(const Header& header) {
  std::vector<std::string_view> result;
  for (const TensorEntry& tensor : header.tensors()) {
    result.push_back(tensor.name);
  }
  return result;
}

TEST(Header, HoldsTheTensorsInTheOrderOfTheirData) {
  const Header header =
      parse_header("{" + entry("a", "F32", "[2]", 8, 16) + "," + entry("c", "U8", "[8]", 0, 8) + "," +
                       entry("b", "I64", "[]", 16, 24) + "}",
                   24);
  EXPECT_EQ(names(header), (std::vector<std::string_view>{"c", "a", "b"}));
  const TensorEntry& first = header.tensors()[0];
  EXPECT_EQ(first.dtype, DType::kU8);
  EXPECT_EQ(std::vector(first.shape.begin(), first.shape.end()), std::vector<int64_t>{8});
  EXPECT_EQ(first.begin, 0u);
  EXPECT_EQ(first.end, 8u);
  EXPECT_EQ(first.nbytes(), 8u);
  EXPECT_EQ(header.metadata(), std::nullopt);
}

TEST(Header, KeepsEmptyTensorsInTheOrderOfTheText) {
  const Header header = parse_header(
      "{" + entry("z", "F32", "[0]", 4, 4) + "," + entry("y", "F32", "[0]", 0, 0) + "," +
          entry("w", "F32", "[]", 0, 4) + "," + entry("x", "F32", "[0,4611686018427387904]", 0, 0) + "}",
      4);
  EXPECT_EQ(names(header), (std::vector<std::string_view>{"y", "x", "w", "z"}));
}

TEST(Header, MayBeEmpty) {
  const Header header = parse_header("{}", 0);
  EXPECT_TRUE(header.tensors().empty());
  EXPECT_EQ(header.find("a"), nullptr);
  EXPECT_EQ(header.find(""), nullptr);
}

TEST(Header, FindsTensorsByName) {
  const Header header =
      parse_header("{" + entry("b", "U8", "[1]", 0, 1) + "," + entry("", "U8", "[1]", 1, 2) + "," +
                       entry("a\\u0000", "U8", "[1]", 2, 3) + "}",
                   3);
  ASSERT_NE(header.find(""), nullptr);
  EXPECT_EQ(header.find("")->begin, 1u);
  ASSERT_NE(header.find(std::string_view("a\0", 2)), nullptr);
  EXPECT_EQ(header.find("a"), nullptr);
  EXPECT_EQ(header.find("c"), nullptr);
  EXPECT_EQ(std::vector(header.by_name().begin(), header.by_name().end()), (std::vector<uint32_t>{1, 2, 0}));
}

TEST(Header, SortsNamesByTheirBytes) {
  const Header header =
      parse_header("{" + entry("\u00E9", "U8", "[1]", 0, 1) + "," + entry("z", "U8", "[1]", 1, 2) + "}", 2);
  EXPECT_EQ(std::vector(header.by_name().begin(), header.by_name().end()), (std::vector<uint32_t>{1, 0}));
}

TEST(Header, StaysValidWhenItIsMoved) {
  Header header = parse_header("{" + entry("w", "U8", "[4]", 0, 4) + R"(,"__metadata__":{"k":"v"}})", 4);
  Header moved = std::move(header);
  header = parse_header("{}", 0);
  const Header again = std::move(moved);
  ASSERT_NE(again.find("w"), nullptr);
  EXPECT_EQ(again.tensors()[0].name, "w");
  EXPECT_EQ(again.tensors()[0].shape[0], 4);
  EXPECT_EQ(again.metadata(), (Metadata{{"k", "v"}}));
}

TEST(Header, OutlivesTheText) {
  auto json = std::make_unique<std::string>("{" + entry("a long name of a tensor", "U8", "[4]", 0, 4) + "}");
  const Header header = parse_header(*json, 4);
  json.reset();
  EXPECT_EQ(header.tensors()[0].name, "a long name of a tensor");
}

TEST(Header, AcceptsAnyAlignment) {
  const Header header =
      parse_header("{" + entry("a", "U8", "[1]", 0, 1) + "," + entry("b", "F64", "[1]", 1, 9) + "}", 9);
  EXPECT_EQ(header.tensors()[1].begin, 1u);
}

TEST(Header, AcceptsTypesThatTorchCannotHold) {
  EXPECT_EQ(parse_header("{" + entry("a", "F6_E2M3", "[4]", 0, 3) + "}", 3).tensors().size(), 1u);
  EXPECT_EQ(parse_header("{" + entry("a", "F4", "[2,1]", 0, 1) + "}", 1).tensors().size(), 1u);
}

TEST(Header, RefusesTensorsThatDoNotCoverTheData) {
  EXPECT_EQ(header_refusal(JsonOf(), 5),
            "incomplete metadata, file not fully covered: the tensors end at byte 4 but the file has 5 bytes "
            "of data");
  EXPECT_EQ(
      header_refusal("{" + entry("a", "U8", "[4]", 0, 4) + "," + entry("b", "U8", "[4]", 8, 12) + "}", 12),
      "tensor 'b': invalid offset: data_offsets [8, 12) leave a hole after byte 4");
  EXPECT_EQ(
      header_refusal("{" + entry("a", "U8", "[8]", 0, 8) + "," + entry("b", "U8", "[4]", 4, 8) + "}", 8),
      "tensor 'b': invalid offset: data_offsets [4, 8) overlap the tensor that ends at byte 8");
}

TEST(Header, RefusesASizeThatIsNotTheRanges) {
  EXPECT_EQ(header_refusal("{" + entry("w", "F32", "[2,2]", 0, 12) + "}", 12),
            "tensor 'w': data_offsets [0, 12) hold 12 bytes but F32 [2, 2] needs 16");
  EXPECT_EQ(header_refusal("{" + entry("w", "F32", "[]", 0, 0) + "}", 0),
            "tensor 'w': data_offsets [0, 0) hold 0 bytes but F32 [] needs 4");
  EXPECT_EQ(header_refusal("{" + entry("w", "F4", "[2]", 0, 2) + "}", 2),
            "tensor 'w': data_offsets [0, 2) hold 2 bytes but F4 [2] needs 1");
}

TEST(Header, RefusesASizeThatOverflows) {
  EXPECT_EQ(header_refusal("{" + entry("w", "U8", "[4294967296,4294967296]", 0, 0) + "}", 0),
            "tensor 'w': overflow: the size of U8 [4294967296, 4294967296] does not fit in 64 bits");
}

TEST(Header, RefusesASizeThatEndsWithinAByte) {
  EXPECT_EQ(header_refusal("{" + entry("w", "F4", "[3]", 0, 2) + "}", 2),
            "tensor 'w': F4 [3] takes 12 bits, which do not end at a byte boundary");
}

TEST(Header, RefusesDuplicateNames) {
  // The reference keeps the last of them.
  const std::string error = "tensor 'w': duplicate name: two tensors of the header have it";
  EXPECT_EQ(
      header_refusal("{" + entry("w", "U8", "[4]", 0, 4) + "," + entry("w", "U8", "[4]", 0, 4) + "}", 4),
      error);
  EXPECT_EQ(
      header_refusal("{" + entry("w", "U8", "[4]", 0, 4) + "," + entry("w", "U8", "[4]", 4, 8) + "}", 8),
      error);
  EXPECT_EQ(header_refusal(
                "{" + entry("w", "U8", "[0]", 0, 0) + "," + entry("\\u0077", "U8", "[0]", 0, 0) + "}", 0),
            error);
  EXPECT_EQ(header_refusal("{" + entry("w", "U8", "[1]", 0, 1) + "," + entry("a", "U8", "[1]", 1, 2) + "," +
                               entry("w", "U8", "[1]", 2, 3) + "}",
                           3),
            error);
}

TEST(Header, ReportsAMillionDimensionsInAShortMessage) {
  std::string shape = "[2";
  for (int i = 1; i < 1'000'000; ++i) {
    shape += ",2";
  }
  EXPECT_EQ(header_refusal("{" + entry("w", "U8", shape + "]", 0, 0) + "}", 0),
            "tensor 'w': overflow: the size of U8 [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, ...] "
            "(1000000 dimensions) does not fit in 64 bits");
}

}  // namespace
}  // namespace torch_safetensors::format
