#include "format/header_json.h"

#include <gtest/gtest.h>

#include "json_of.h"

namespace torch_safetensors::format {
namespace {

using std::string_literals::operator""s;

TEST(HeaderJson, AcceptsAnEmptyObject) { EXPECT_TRUE(parse("{}").tensors.empty()); }

TEST(HeaderJson, AcceptsWhitespaceAroundEverything) {
  const HeaderContent header = parse(
      " \t\r\n{ \"w\" : { \"dtype\" : \"U8\" , \"shape\" : [ 1 , 2 ] ,\n\"data_offsets\" : [ 0 , 2 ] } } "
      "\t\r\n");
  EXPECT_EQ(dims_of(header), (std::vector<int64_t>{1, 2}));
}

TEST(HeaderJson, AcceptsEveryNameThatIsUnicode) {
  const std::string entry = R"(:{"dtype":"U8","shape":[],"data_offsets":[0,1]})";
  for (const auto& [text, name] : {
           std::pair(R"("")"s, ""s),
           std::pair(R"("\u0000")"s, "\0"s),
           std::pair(R"("a\u0000b")"s, "a\0b"s),
           std::pair("\"\x7F\""s, "\x7F"s),
           std::pair("\"\u00E9\u4E2D\U0001F600\uFFFF\""s, "\u00E9\u4E2D\U0001F600\uFFFF"s),
           std::pair(R"("\u00e9\u4E2d")"s, "\u00E9\u4E2D"s),
           std::pair(R"("\ud83d\uDE00")"s, "\U0001F600"s),
           std::pair(R"("\"\\\/\b\f\n\r\t")"s, "\"\\/\b\f\n\r\t"s),
           std::pair(R"("dtype")"s, "dtype"s),
           std::pair(R"("__metadata")"s, "__metadata"s),
       }) {
    EXPECT_EQ(name_of(parse("{" + text + entry + "}")), name) << text;
  }
}

TEST(HeaderJson, AcceptsEscapesInTheWordsOfTheFormat) {
  const HeaderContent header = parse(
      R"({"\u005f_metadata__":{"k":"v"},"w":{"dt\u0079pe":"F\u00332","shape":[],"data\u005foffsets":[0,4]}})");
  EXPECT_EQ(header.tensors.at(0).dtype, DType::kF32);
  EXPECT_EQ(header.metadata, (Metadata{{"k", "v"}}));
}

TEST(HeaderJson, MustNotBeEmpty) {
  EXPECT_EQ(refusal(""), "0: the header is empty");
  EXPECT_EQ(refusal("  "), "2: the header is empty");
}

TEST(HeaderJson, MustBeUtf8) {
  EXPECT_EQ(refusal("{\"\xFF\":1}"), "invalid UTF-8 in header at byte 2");
  EXPECT_EQ(refusal("{\"\xC0\x80\":1}"), "invalid UTF-8 in header at byte 2");      // overlong
  EXPECT_EQ(refusal("{\"\xED\xA0\x80\":1}"), "invalid UTF-8 in header at byte 2");  // a surrogate
  EXPECT_EQ(refusal("{\"\xF4\x90\x80\x80\":1}"), "invalid UTF-8 in header at byte 2");
  EXPECT_EQ(refusal("{}\xFF"), "invalid UTF-8 in header at byte 2");
  EXPECT_EQ(refusal(JsonOf{.more = unknown_field("\"\xE0\x80\x80\"")}), "invalid UTF-8 in header at byte 57");
}

TEST(HeaderJson, MustNotBeginWithAByteOrderMark) { EXPECT_EQ(refusal("\uFEFF{}"), "0: invalid value"); }

TEST(HeaderJson, MustNotHoldNul) {
  EXPECT_EQ(refusal("{}\0\0"s), "2: trailing characters after the object");  // NUL padding
  EXPECT_EQ(refusal("\0{}"s), R"(0: unexpected control character '\x00')");
  EXPECT_EQ(refusal("{\0}"s), R"(1: unexpected control character '\x00')");
  EXPECT_EQ(refusal("{\"a\0\":1}"s), R"(3: unexpected control character '\x00')");
  EXPECT_EQ(refusal("{} \0"s), "3: trailing characters after the object");
}

TEST(HeaderJson, MustNotHoldRawControlCharactersInStrings) {
  for (char c = 1; c < 0x20; ++c) {
    // Past the first sixteen bytes, where a parser may read with vector instructions.
    const std::string name = "0123456789abcdef0123456789" + std::string(1, c) + "0123456789abcdef";
    constexpr char kDigits[] = "0123456789abcdef";
    EXPECT_EQ(refusal("{\"" + name + "\":1}"),
              std::string("28: unexpected control character '\\x") + kDigits[c >> 4] + kDigits[c & 15] + "'");
  }
}

TEST(HeaderJson, MustEndAfterTheObject) {
  for (const char* const json : {"{}x", "{}{}", "{},", "{}}", "{}]", "{}/**/", "{} 0"}) {
    EXPECT_TRUE(refusal(json).ends_with(": trailing characters after the object")) << json;
  }
}

TEST(HeaderJson, MustNotBeCutShort) {
  const std::string json = JsonOf{.more = R"(,"x":{"a":[1.5e3,true,"\u00e9"]})"};
  for (size_t size = 0; size < json.size(); ++size) {
    EXPECT_NE(refusal(json.substr(0, size)), "(no error)") << json.substr(0, size);
  }
  EXPECT_EQ(refusal("{"), "1: missing a name for object member");
  EXPECT_EQ(refusal("{\"a"), "3: missing a closing quotation mark in string");
}

TEST(HeaderJson, HasNoTrailingCommas) {
  EXPECT_EQ(refusal(R"({"__metadata__":{},})"), "19: missing a name for object member");
  EXPECT_EQ(refusal(JsonOf{.shape = "[4,]"}), "30: invalid value");
  EXPECT_EQ(refusal("{,}"), "1: missing a name for object member");
}

TEST(HeaderJson, HasNoCommentsAndNoSingleQuotes) {
  EXPECT_EQ(refusal("{/**/}"), "1: missing a name for object member");
  EXPECT_EQ(refusal("{//\n}"), "1: missing a name for object member");
  EXPECT_EQ(refusal("{'w':1}"), "1: missing a name for object member");
  EXPECT_EQ(refusal("{w:1}"), "1: missing a name for object member");
}

TEST(HeaderJson, HasTheEscapesOfJsonAlone) {
  EXPECT_EQ(refusal(R"({"\x":1})"), "2: invalid escape character in string");
  EXPECT_EQ(refusal(R"({"\u12":1})"), "2: incorrect hex digit after \\u escape in string");
}

TEST(HeaderJson, HasTheNumbersOfJsonAlone) {
  for (const char* const number : {"NaN", "Infinity", "-Infinity", "nan", "+1", "01", "-01", "1.", ".5", "1e",
                                   "1e+", "-", "0x4", "1_000", "--1"}) {
    EXPECT_NE(refusal(JsonOf{.more = unknown_field(number)}), "(no error)") << number;
    EXPECT_NE(refusal(JsonOf{.shape = "[" + std::string(number) + "]"}), "(no error)") << number;
  }
}

TEST(HeaderJson, ConvertsNoNumberThatItIgnores) {
  // RapidJSON crashed on the first: the sum of its exponents overflows an int.
  for (const char* const number : {"0.0000000001e-2147483639", "0.1e-2147483648", "1e-99999999999999999999",
                                   "0.00000000000000000000000000000000000000000001e-2147483647"}) {
    EXPECT_EQ(parse(JsonOf{.more = unknown_field(number)}).tensors.size(), 1u) << number;
  }
}

}  // namespace
}  // namespace torch_safetensors::format
