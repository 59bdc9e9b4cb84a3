#include "format/shard_index.h"

#include <gtest/gtest.h>

#include "error_of.h"

namespace torch_safetensors::format {
namespace {

using Names = std::vector<std::string>;

std::string refusal(const std::string& json) {
  return error_of([&] { parse_shard_index(json); });
}

std::string map_of(const std::string& entries) { return R"({"weight_map":{)" + entries + "}}"; }

TEST(ShardIndex, HasTheNamesOfEachFile) {
  const ShardIndex index = parse_shard_index(
      R"({"metadata":{"total_size":8,"more":[{"weight_map":1}]},"weight_map":{"b":"2","c":"1","a":"2"},"x":null})");
  ASSERT_EQ(index.shards().size(), 2U);
  EXPECT_EQ(index.shards()[0].file, "1");
  EXPECT_EQ(index.shards()[0].names, (Names{"c"}));
  EXPECT_EQ(index.shards()[1].file, "2");
  EXPECT_EQ(index.shards()[1].names, (Names{"a", "b"}));
}

TEST(ShardIndex, MayHaveNoTensors) { EXPECT_TRUE(parse_shard_index(map_of("")).shards().empty()); }

TEST(ShardIndex, ReadsEscapesInNames) {
  const ShardIndex index = parse_shard_index(map_of(R"("\u00e9\u0000":"sub/\u0066")"));
  EXPECT_EQ(index.shards()[0].file, "sub/f");
  EXPECT_EQ(index.shards()[0].names, (Names{std::string("\u00E9\0", 3)}));
}

TEST(ShardIndex, MustHaveAWeightMapOnce) {
  EXPECT_EQ(refusal("{}"), "not an index of a checkpoint: it has no weight_map");
  EXPECT_EQ(refusal(R"({"metadata":{"weight_map":{}}})"),
            "not an index of a checkpoint: it has no weight_map");
  EXPECT_TRUE(refusal(R"({"weight_map":{},"weight_map":{}})").ends_with(": duplicate field `weight_map`"));
}

TEST(ShardIndex, MustBeObjectsOfStrings) {
  EXPECT_TRUE(refusal("[]").ends_with(": expected an object, found an array")) << refusal("[]");
  EXPECT_TRUE(refusal("1").ends_with(": expected an object, found a number")) << refusal("1");
  for (const auto& [value, kind] : {std::pair("null", "null"), std::pair("true", "a boolean"),
                                    std::pair("1", "a number"), std::pair("[]", "an array")}) {
    EXPECT_TRUE(refusal(std::string(R"({"weight_map":)") + value + "}")
                    .ends_with(std::string(": weight_map: expected an object, found ") + kind))
        << value;
    EXPECT_TRUE(refusal(map_of(R"("w":)" + std::string(value)))
                    .ends_with(std::string(": weight_map: tensor 'w': expected a file name, found ") + kind))
        << value;
  }
  EXPECT_TRUE(refusal(R"({"weight_map":"x"})").ends_with(": weight_map: expected an object, found a string"));
  EXPECT_TRUE(refusal(map_of(R"("w":{})")).ends_with(": expected a file name, found an object"));
}

TEST(ShardIndex, MustBeJson) {
  EXPECT_EQ(refusal(""), "invalid JSON in index at byte 0: the index is empty");
  EXPECT_EQ(refusal("{} x"), "invalid JSON in index at byte 3: trailing characters after the object");
  EXPECT_EQ(refusal("{\"\xFF\":1}"), "invalid UTF-8 in index at byte 2");
  EXPECT_TRUE(refusal(R"({"x":)" + std::string(200, '['))
                  .ends_with("recursion limit exceeded: more than 127 levels"));
  EXPECT_TRUE(refusal(map_of(R"("\udc00":"f")")).ends_with(": lone surrogate in a string"));
}

TEST(ShardIndex, MustHaveATensorInOneFile) {
  EXPECT_EQ(refusal(map_of(R"("w":"f","w":"g")")),
            "weight_map: tensor 'w': stands there twice, in 'f' and in 'g'");
  EXPECT_EQ(refusal(map_of(R"("w":"f","\u0077":"f")")),
            "weight_map: tensor 'w': stands there twice, in 'f' and in 'f'");
}

TEST(ShardIndex, MustNotLeadOutOfItsFolder) {
  for (const char* file : {"", "/f", "..", "../f", "a/../../f", "a/..", "f\\u0000"}) {
    EXPECT_TRUE(refusal(map_of(R"("w":")" + std::string(file) + "\""))
                    .ends_with("is not the name of a file in the folder of the index"))
        << file;
  }
  for (const char* file : {"f", "..f", "f..", "a/f", "...", "a/..b/f"}) {
    EXPECT_EQ(parse_shard_index(map_of(R"("w":")" + std::string(file) + "\"")).shards()[0].file, file);
  }
}

}  // namespace
}  // namespace torch_safetensors::format
