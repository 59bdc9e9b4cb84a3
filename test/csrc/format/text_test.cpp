#include "format/text.h"

#include <gtest/gtest.h>

#include <vector>

namespace torch_safetensors::format {
namespace {

using std::string_literals::operator""s;

TEST(Utf8Prefix, TakesEveryCharacterOfUnicode) {
  const std::string text = "a\x7F\u0080\u07FF\u0800\uD7FF\uE000\uFFFF\U00010000\U0010FFFF\0"s;
  EXPECT_EQ(utf8_prefix(text), text.size());
  EXPECT_TRUE(is_utf8(text));
  EXPECT_TRUE(is_utf8(""));
}

TEST(Utf8Prefix, EndsBeforeWhatIsNotUtf8) {
  for (const char* const wrong : {
           "\x80",
           "\xBF",  // continuation without a lead
           "\xC0\x80",
           "\xC1\xBF",
           "\xE0\x9F\xBF",
           "\xF0\x8F\xBF\xBF",  // overlong
           "\xED\xA0\x80",
           "\xED\xBF\xBF",  // surrogates
           "\xF4\x90\x80\x80",
           "\xF5\x80\x80\x80",
           "\xFE",
           "\xFF",  // beyond U+10FFFF
           "\xC3",
           "\xE2\x82",
           "\xF0\x9F\x98",
           "\xC3(",
           "\xE2(\x82",
           "\xE2\x82(",
           "\xF0\x9F\x98(",  // cut short
       }) {
    // At every place within the eight bytes that are looked at together.
    for (size_t before = 0; before < 20; ++before) {
      const std::string text = std::string(before, 'a') + wrong;
      EXPECT_EQ(utf8_prefix(text), before) << testing::PrintToString(text);
      EXPECT_EQ(utf8_prefix(text + "bbbbbbbbb"), before) << testing::PrintToString(text);
      EXPECT_FALSE(is_utf8(text));
    }
  }
}

TEST(HasSurrogate, WhereOneIsEncoded) {
  for (const char* const text : {"\xED\xA0\x80", "a\xED\xBF\xBF", "\uD7FF\xED\xB0\x80z"}) {
    EXPECT_TRUE(has_surrogate(text)) << testing::PrintToString(text);
  }
  for (const char* const text : {"", "a", "\uD000", "\uD7FF\uE000", "\U0001F600"}) {
    EXPECT_FALSE(has_surrogate(text)) << testing::PrintToString(text);
  }
}

TEST(SortablePrefix, SortsAsTheTextDoes) {
  EXPECT_EQ(sortable_prefix(""), 0u);
  EXPECT_EQ(sortable_prefix("ab"), UINT64_C(0x6162000000000000));
  EXPECT_EQ(sortable_prefix("\xFF\x80 345678"), UINT64_C(0xFF80203334353637));
}

TEST(Quoted, EscapesWhatIsNotPrintable) {
  EXPECT_EQ(format::in_quotes(""), "''");
  EXPECT_EQ(format::in_quotes("a \u00E9\u4E2D\U0001F600"), "'a \u00E9\u4E2D\U0001F600'");
  EXPECT_EQ(format::in_quotes("\0\n\x1F\x7F"s), R"('\x00\x0a\x1f\x7f')");
  EXPECT_EQ(format::in_quotes("a\xFF\xC3"), R"('a\xff\xc3')");
}

TEST(Quoted, ShortensALongTextInTheMiddle) {
  EXPECT_EQ(format::in_quotes(std::string(200, 'a')), "'" + std::string(200, 'a') + "'");
  EXPECT_EQ(format::in_quotes(std::string(100, 'a') + "-" + std::string(100, 'b')),
            "'" + std::string(100, 'a') + "[...]" + std::string(100, 'b') + "' (201 bytes)");
}

TEST(Quoted, StaysUtf8WhereTheCutSplitsACharacter) {
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    text += "\u4E2D";
  }
  EXPECT_TRUE(is_utf8(format::in_quotes(text)));
  EXPECT_TRUE(is_utf8(format::in_quotes("a" + text)));
}

TEST(Printable, KeepsTheWholeText) {
  EXPECT_EQ(printable("/tmp/\u00E9\xE9\n"), "/tmp/\u00E9\\xe9\\x0a");
  EXPECT_EQ(printable(std::string(1000, 'a')), std::string(1000, 'a'));
}

TEST(Describe, NamesDTypeAndShape) {
  EXPECT_EQ(describe(DType::kF32, {}), "F32 []");
  EXPECT_EQ(describe(DType::kF8E4M3FNUZ, std::vector<int64_t>{2, 3}), "F8_E4M3FNUZ [2, 3]");
}

TEST(Describe, CutsAMillionDimensionsShort) {
  EXPECT_EQ(describe(DType::kU8, std::vector<int64_t>(16, 1)),
            "U8 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]");
  EXPECT_EQ(describe(DType::kU8, std::vector<int64_t>(1'000'000, 1)),
            "U8 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ...] (1000000 dimensions)");
}

}  // namespace
}  // namespace torch_safetensors::format
