#include "format/plain_header.h"

#include <gtest/gtest.h>

#include <string>

#include "json_of.h"
#include "same_header.h"

namespace torch_safetensors::format {
namespace {

/// True if the header is plain; and then says the same to both parsers.
bool is_plain(const std::string& json) {
  // In memory of its own, where sanitizers see each byte that is read too much.
  const std::vector<char> bytes(json.begin(), json.end());
  const std::optional<HeaderContent> plain = read_plain_header({bytes.data(), bytes.size()});
  if (plain) {
    expect_same(*plain, parse_header_json(json));
  }
  return plain.has_value();
}

TEST(PlainHeader, IsWhatWritersWrite) {
  EXPECT_TRUE(is_plain("{}"));
  EXPECT_TRUE(is_plain("{}      "));
  EXPECT_TRUE(is_plain(JsonOf()));
  EXPECT_TRUE(is_plain(R"({"b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},)"
                       R"("a":{"data_offsets":[0,8],"shape":[],"dtype":"F8_E4M3FNUZ"}})"));
  EXPECT_TRUE(is_plain(R"({"a": {"dtype": "I64", "shape": [1, 2], "data_offsets": [0, 16]}, )"
                       R"("b": {"dtype": "U8", "shape": [], "data_offsets": [16, 17]}})"));
  EXPECT_TRUE(is_plain(
      "\n{\t\"w\" : { \"dtype\" : \"U8\" , \"shape\" : [ ] ,\r\n\"data_offsets\" : [ 0 , 1 ] } }\n"));
  EXPECT_TRUE(
      is_plain("{\"\u00E9\u4E2D\U0001F600\x7F\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}"));
}

TEST(PlainHeader, MayHaveMetadata) {
  EXPECT_TRUE(is_plain(R"({"__metadata__":{}})"));
  EXPECT_TRUE(is_plain(R"({"__metadata__":{"format":"pt","a":"","format":"np"}})"));
  EXPECT_TRUE(
      is_plain(R"({"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]}, "__metadata__": {"k": "v"}})"));
}

TEST(PlainHeader, HasRoomForTheMostThatCanStandInIt) {
  std::string dims = "0";
  for (int i = 0; i < 10'000; ++i) {
    dims += ",1";
  }
  EXPECT_TRUE(is_plain(R"({"":{"dtype":"U8","shape":[)" + dims + R"(],"data_offsets":[0,0]}})"));
  std::string names = R"({"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  for (int i = 0; i < 10'000; ++i) {
    names += R"(,"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  EXPECT_TRUE(is_plain(names + "}"));
  // The only shape whose tensor has no comma yet.
  EXPECT_FALSE(is_plain(R"({"":{"shape":[1)"));
  EXPECT_FALSE(is_plain(R"({"":{"shape":[1]}})"));
  EXPECT_EQ(refusal(R"({"":{"shape":[1]}})"), "16: tensor '': missing field `dtype`");
}

TEST(PlainHeader, HasNoEscapes) {
  EXPECT_FALSE(is_plain(R"({"\u0077":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})"));
  EXPECT_FALSE(is_plain(R"({"w":{"dtyp\u0065":"U8","shape":[],"data_offsets":[0,1]}})"));
  EXPECT_FALSE(is_plain(R"({"__metadata__":{"k":"\n"}})"));
}

TEST(PlainHeader, HasTheFieldsOfATensorOnce) {
  EXPECT_FALSE(is_plain(R"({"w":{}})"));
  EXPECT_FALSE(is_plain(R"({"w":{"shape":[4],"data_offsets":[0,4]}})"));
  EXPECT_FALSE(is_plain(R"({"w":{"dtype":"U8","data_offsets":[0,4]}})"));
  EXPECT_FALSE(is_plain(R"({"w":{"dtype":"U8","shape":[4]}})"));
  EXPECT_FALSE(is_plain(JsonOf{.more = unknown_field("0")}));
  EXPECT_FALSE(is_plain(JsonOf{.more = R"(,"dtype":"U8")"}));
  EXPECT_FALSE(is_plain(JsonOf{.more = R"(,"shape":[4])"}));
  EXPECT_FALSE(is_plain(JsonOf{.more = R"(,"data_offsets":[0,4])"}));
}

TEST(PlainHeader, HasValuesOfTheFormatAlone) {
  EXPECT_FALSE(is_plain(JsonOf{.dtype = R"("u8")"}));
  EXPECT_FALSE(is_plain(JsonOf{.dtype = "8"}));
  EXPECT_FALSE(is_plain(JsonOf{.shape = "[9223372036854775808]"}));
  EXPECT_FALSE(is_plain(JsonOf{.shape = "[-1]"}));
  EXPECT_FALSE(is_plain(JsonOf{.shape = "[01]"}));
  EXPECT_FALSE(is_plain(JsonOf{.shape = "[1.0]"}));
  EXPECT_FALSE(is_plain(JsonOf{.shape = "[1,]"}));
  EXPECT_FALSE(is_plain(JsonOf{.shape = "4"}));
  EXPECT_FALSE(is_plain(JsonOf{.data_offsets = "[]"}));
  EXPECT_FALSE(is_plain(JsonOf{.data_offsets = "[0]"}));
  EXPECT_FALSE(is_plain(JsonOf{.data_offsets = "[0,1,2]"}));
  EXPECT_FALSE(is_plain(JsonOf{.data_offsets = "[0,18446744073709551616]"}));
  EXPECT_FALSE(is_plain(R"({"w":null})"));
  EXPECT_FALSE(is_plain(R"({"__metadata__":null})"));
  EXPECT_FALSE(is_plain(R"({"__metadata__":{"k":1}})"));
  EXPECT_FALSE(is_plain(R"({"__metadata__":{},"__metadata__":{}})"));
}

TEST(PlainHeader, IsUtf8) {
  EXPECT_FALSE(is_plain("{\"\xFF\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}"));
  EXPECT_FALSE(is_plain("{\"__metadata__\":{\"a long key \xED\xA0\x80\":\"v\"}}"));
  EXPECT_FALSE(is_plain("{\"__metadata__\":{\"k\":\"\xC0\x80\"}}"));
}

TEST(PlainHeader, IsWhole) {
  const std::string json = R"({"__metadata__":{"k":"v"},)" + std::string(JsonOf()).substr(1);
  ASSERT_TRUE(is_plain(json));
  for (size_t size = 0; size < json.size(); ++size) {
    EXPECT_FALSE(is_plain(json.substr(0, size))) << json.substr(0, size);
    is_plain(json.substr(0, size) + "!" + json.substr(size + 1));  // may be a name
  }
  EXPECT_FALSE(is_plain(json + "}"));
  EXPECT_FALSE(is_plain(json + std::string(1, '\0')));
  EXPECT_FALSE(is_plain("[]"));
}

}  // namespace
}  // namespace torch_safetensors::format
