#include "format/header_builder.h"

#include <gtest/gtest.h>

#include "json_of.h"

namespace torch_safetensors::format {
namespace {

using std::string_literals::operator""s;

TEST(HeaderBuilder, AcceptsMetadataAnywhere) {
  const std::string tensor = R"("w":{"dtype":"U8","shape":[],"data_offsets":[0,1]})";
  const std::string metadata = R"("__metadata__":{"b":"2","a":"\u0000"})";
  const Metadata expected{{"a", "\0"s}, {"b", "2"}};
  EXPECT_EQ(parse("{" + metadata + "," + tensor + "}").metadata, expected);
  EXPECT_EQ(parse("{" + tensor + "," + metadata + "}").metadata, expected);
  EXPECT_EQ(parse("{" + metadata + "}").metadata, expected);
}

TEST(HeaderBuilder, AcceptsEmptyMetadata) { EXPECT_EQ(parse(R"({"__metadata__":{}})").metadata, Metadata()); }

TEST(HeaderBuilder, TakesNullMetadataForNone) {
  EXPECT_EQ(parse(R"({"__metadata__":null})").metadata, std::nullopt);
  EXPECT_EQ(
      parse(R"({"__metadata__":null,"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})").tensors.size(),
      1u);
}

TEST(HeaderBuilder, KeepsTheLastOfDuplicateKeysInMetadata) {
  EXPECT_EQ(parse(R"({"__metadata__":{"a":"1","b":"2","\u0061":"3"}})").metadata,
            (Metadata{{"a", "3"}, {"b", "2"}}));
}

TEST(HeaderBuilder, IgnoresUnknownFieldsOfATensor) {
  for (const char* const value :
       {"null", "true", "false", "0", "-0", "-1", "1.5", "2e0", "1E+2", "1e308", "0.1e-400",
        "18446744073709551616", R"("")", R"("\ud83d\ude00")", "[]", "{}", R"([1,[2,{"a":[{}]}],"]}"])",
        R"({"a":1,"a":2})", R"({"dtype":1,"shape":{"dtype":2},"__metadata__":3})"}) {
    EXPECT_EQ(parse(JsonOf{.more = unknown_field(value)}).tensors.size(), 1u) << value;
    const std::string first =
        R"({"w":{"x":)" + std::string(value) + R"(,"y":0,"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
    EXPECT_EQ(dims_of(parse(first)), std::vector<int64_t>{4}) << value;
  }
}

TEST(HeaderBuilder, IgnoresUnknownFieldsGivenTwice) {
  EXPECT_EQ(parse(JsonOf{.more = R"(,"x":1,"x":2)"}).tensors.size(), 1u);
}

TEST(HeaderBuilder, NestsTo127Levels) {
  // Two levels around the field: the header's object and the tensor's.
  EXPECT_EQ(parse(JsonOf{.more = unknown_field(nested(125))}).tensors.size(), 1u);
  EXPECT_EQ(refusal(JsonOf{.more = unknown_field(nested(126))}),
            "181: recursion limit exceeded: more than 127 levels");
}

TEST(HeaderBuilder, HasNoLoneSurrogatesWhereverTheyStand) {
  for (const char* const escape :
       {R"(\ud800)", R"(\uDBFF)", R"(\ud800\u0041)", R"(\ud800\ud800)", R"(\udc00)", R"(\uDFFF)",
        R"(\udc00\ud800)", R"(a\udc00)", R"(\ud83d\ude00\ude00)"}) {
    const std::string text = '"' + std::string(escape) + '"';
    const std::string entry = R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
    for (const std::string& json :
         {"{" + text + ":" + entry + "}", std::string(JsonOf{.dtype = text}),
          std::string(JsonOf{.more = "," + text + ":0"}), std::string(JsonOf{.more = unknown_field(text)}),
          std::string(JsonOf{.more = unknown_field("{" + text + ":[]}")}),
          R"({"__metadata__":{"k":)" + text + "}}", R"({"__metadata__":{)" + text + R"(:"v"}})"}) {
      EXPECT_TRUE(refusal(json).ends_with(": lone surrogate in a string")) << json << " " << refusal(json);
    }
  }
}

TEST(HeaderBuilder, HasNoNumbersBeyondADouble) {
  EXPECT_EQ(refusal(JsonOf{.more = unknown_field("1e999")}), "56: number out of range");
  EXPECT_EQ(refusal(JsonOf{.more = unknown_field("-1e309")}), "56: number out of range");
  EXPECT_EQ(refusal(JsonOf{.more = unknown_field("10e308")}), "56: number out of range: '10e308'");
  EXPECT_EQ(refusal(JsonOf{.more = unknown_field("-1.8e308")}), "56: number out of range: '-1.8e308'");
  EXPECT_EQ(refusal(JsonOf{.more = unknown_field(std::string(400, '9'))}), "56: number out of range");
  EXPECT_EQ(refusal(JsonOf{.more = unknown_field(std::string(309, '9'))}), "56: number out of range");
  EXPECT_EQ(parse(JsonOf{.more = unknown_field(std::string(308, '9'))}).tensors.size(), 1u);
}

TEST(HeaderBuilder, MustBeAnObject) {
  EXPECT_EQ(refusal("[]"), "0: expected an object, found an array");
  EXPECT_EQ(refusal("null"), "4: expected an object, found null");
  EXPECT_EQ(refusal("1"), "0: expected an object, found a number");
  EXPECT_EQ(refusal("\"x\""), "3: expected an object, found a string");
  EXPECT_EQ(refusal("true"), "4: expected an object, found a boolean");
}

TEST(HeaderBuilder, RefusesDeepNestingEarly) {
  EXPECT_EQ(refusal(std::string(1'000'000, '[')), "0: expected an object, found an array");
  EXPECT_TRUE(refusal(JsonOf{.more = unknown_field(nested(1'000'000))})
                  .ends_with(": recursion limit exceeded: more than 127 levels"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) {
    objects += R"({"a":)";
  }
  EXPECT_TRUE(refusal(JsonOf{.more = unknown_field(objects)})
                  .ends_with(": recursion limit exceeded: more than 127 levels"));
}

TEST(HeaderBuilder, MustHaveObjectsForTensors) {
  EXPECT_EQ(refusal(R"({"w":1})"), "5: tensor 'w': expected an object, found a number");
  EXPECT_EQ(refusal(R"({"w":null})"), "9: tensor 'w': expected an object, found null");
  EXPECT_EQ(refusal(R"({"w":"x"})"), "8: tensor 'w': expected an object, found a string");
  EXPECT_EQ(refusal(R"({"w":false})"), "10: tensor 'w': expected an object, found a boolean");
}

TEST(HeaderBuilder, MustNotHaveArraysForTensors) {
  // The reference takes the fields from them.
  EXPECT_EQ(refusal(R"({"w":["U8",[4],[0,4]]})"), "5: tensor 'w': expected an object, found an array");
}

TEST(HeaderBuilder, MustHaveAStringForDType) {
  EXPECT_EQ(refusal(JsonOf{.dtype = "8"}), "14: tensor 'w': dtype: expected a string, found a number");
  EXPECT_EQ(refusal(JsonOf{.dtype = "null"}), "18: tensor 'w': dtype: expected a string, found null");
  EXPECT_EQ(refusal(JsonOf{.dtype = "true"}), "18: tensor 'w': dtype: expected a string, found a boolean");
  EXPECT_EQ(refusal(JsonOf{.dtype = R"(["U8"])"}),
            "14: tensor 'w': dtype: expected a string, found an array");
}

TEST(HeaderBuilder, MustNotHaveAMapForDType) {
  // The reference takes its key.
  EXPECT_EQ(refusal(JsonOf{.dtype = R"({"U8":null})"}),
            "14: tensor 'w': dtype: expected a string, found an object");
}

TEST(HeaderBuilder, MustHaveAnArrayForShape) {
  const std::string expected = "tensor 'w': shape: expected an array of unsigned integers, found ";
  EXPECT_EQ(refusal(JsonOf{.shape = "4"}), "27: " + expected + "a number");
  EXPECT_EQ(refusal(JsonOf{.shape = "null"}), "31: " + expected + "null");
  EXPECT_EQ(refusal(JsonOf{.shape = R"("4")"}), "30: " + expected + "a string");
  EXPECT_EQ(refusal(JsonOf{.shape = "{}"}), "27: " + expected + "an object");
}

/// What is wrong with each of them, in a shape and in data_offsets alike.
constexpr std::pair<const char*, const char*> kNotUnsigned[] = {
    {"2.0", "a number that is not an integer"},
    {"2e0", "a number that is not an integer"},
    {"2E0", "a number that is not an integer"},
    {"-2.0", "a number that is not an integer"},
    {"-0", "a negative number"},
    {"-2", "a negative number"},
    {"-18446744073709551616", "a negative number"},
    {"18446744073709551616", "a number over 18446744073709551615"},
    {"99999999999999999999999999", "a number over 18446744073709551615"},
    {R"("2")", "a string"},
    {"true", "a boolean"},
    {"null", "null"},
    {"[2]", "an array"},
    {"{}", "an object"},
};

TEST(HeaderBuilder, MustHaveUnsignedIntegersInShape) {
  for (const auto& [value, found] : kNotUnsigned) {
    const std::string error = refusal(JsonOf{.shape = "[1," + std::string(value) + "]"});
    EXPECT_TRUE(
        error.ends_with(": tensor 'w': shape: expected an unsigned integer, found " + std::string(found)))
        << value << ": " << error;
  }
}

TEST(HeaderBuilder, MustHaveUnsignedIntegersInDataOffsets) {
  for (const auto& [value, found] : kNotUnsigned) {
    const std::string error = refusal(JsonOf{.data_offsets = "[0," + std::string(value) + "]"});
    EXPECT_TRUE(error.ends_with(": tensor 'w': data_offsets: expected an unsigned integer, found " +
                                std::string(found)))
        << value << ": " << error;
  }
}

TEST(HeaderBuilder, MustHaveAnObjectForMetadata) {
  const std::string expected = "__metadata__: expected an object of strings, found ";
  EXPECT_EQ(refusal(R"({"__metadata__":1})"), "16: " + expected + "a number");
  EXPECT_EQ(refusal(R"({"__metadata__":[]})"), "16: " + expected + "an array");
  EXPECT_EQ(refusal(R"({"__metadata__":"x"})"), "19: " + expected + "a string");
  EXPECT_EQ(refusal(R"({"__metadata__":true})"), "20: " + expected + "a boolean");
}

TEST(HeaderBuilder, MustHaveStringsInMetadata) {
  const std::string expected = "__metadata__: key 'a': expected a string, found ";
  EXPECT_EQ(refusal(R"({"__metadata__":{"a":1}})"), "21: " + expected + "a number");
  EXPECT_EQ(refusal(R"({"__metadata__":{"a":1.5}})"), "21: " + expected + "a number");
  EXPECT_EQ(refusal(R"({"__metadata__":{"a":null}})"), "25: " + expected + "null");
  EXPECT_EQ(refusal(R"({"__metadata__":{"a":true}})"), "25: " + expected + "a boolean");
  EXPECT_EQ(refusal(R"({"__metadata__":{"a":{}}})"), "21: " + expected + "an object");
  EXPECT_EQ(refusal(R"({"__metadata__":{"a":[]}})"), "21: " + expected + "an array");
}

TEST(HeaderBuilder, MustHaveMetadataOnce) {
  EXPECT_EQ(refusal(R"({"__metadata__":{},"__metadata__":{}})"), "33: duplicate field `__metadata__`");
  EXPECT_EQ(refusal(R"({"__metadata__":null,"__metadata__":{}})"), "35: duplicate field `__metadata__`");
  EXPECT_EQ(refusal(R"({"__metadata__":{},"__metadata_\u005f":{}})"), "38: duplicate field `__metadata__`");
}

}  // namespace
}  // namespace torch_safetensors::format
