#include <gtest/gtest.h>

#include "error_of.h"
#include "format/header.h"

namespace torch_safetensors::format {
namespace {

using std::string_view_literals::operator""sv;

TEST(HeaderPrefix, IsLittleEndian) {
  EXPECT_EQ(parse_header_size("\x02\0\0\0\0\0\0\0"sv, 10), 2u);
  EXPECT_EQ(parse_header_size("\x01\x02\x03\0\0\0\0\0"sv, 1'000'000), 0x030201u);
  EXPECT_EQ(parse_header_size("\xFF\0\0\0\0\0\0\0{}"sv, 263), 255u);
}

TEST(HeaderPrefix, MayAnnounceAnEmptyHeader) {
  // The JSON of it is refused later: an empty text is none.
  EXPECT_EQ(parse_header_size("\0\0\0\0\0\0\0\0"sv, 8), 0u);
}

TEST(HeaderPrefix, MustBeWhole) {
  EXPECT_EQ(error_of([] { parse_header_size("", 0); }),
            "header too small: 0 bytes, but the length field alone has 8");
  EXPECT_EQ(error_of([] { parse_header_size("\x02\0\0\0\0\0\0"sv, 7); }),
            "header too small: 7 bytes, but the length field alone has 8");
}

TEST(HeaderPrefix, MayAnnounceAHundredMillionBytesAtMost) {
  EXPECT_EQ(parse_header_size("\x00\xE1\xF5\x05\0\0\0\0"sv, 100'000'008), 100'000'000u);
  EXPECT_EQ(error_of([] { parse_header_size("\x01\xE1\xF5\x05\0\0\0\0"sv, 1'000'000'000); }),
            "header too large: 100000001 bytes, the limit is 100000000");
  EXPECT_EQ(error_of([] { parse_header_size("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"sv, 8); }),
            "header too large: 18446744073709551615 bytes, the limit is 100000000");
}

TEST(HeaderPrefix, MustNotAnnounceMoreThanTheFileHas) {
  EXPECT_EQ(parse_header_size("\x02\0\0\0\0\0\0\0"sv, 10), 2u);
  EXPECT_EQ(error_of([] { parse_header_size("\x02\0\0\0\0\0\0\0"sv, 9); }),
            "invalid header length: the header of 2 bytes ends at byte 10 of a file of 9 bytes");
  EXPECT_EQ(error_of([] { parse_header_size("\x02\0\0\0\0\0\0\0"sv, 8); }),
            "invalid header length: the header of 2 bytes ends at byte 10 of a file of 8 bytes");
}

}  // namespace
}  // namespace torch_safetensors::format
