#include "shared/filename.h"

#include <gtest/gtest.h>

namespace torch_safetensors::shared {
namespace {

using namespace std::string_literals;

TEST(Filename, IsThePathItself) {
  for (const std::string name : {"", "a.safetensors", "/tmp/\xc3\xa4", "6d"}) {
    EXPECT_EQ(decode_filename(name), name);
  }
}

TEST(Filename, InHexadecimalIsDecoded) {
  EXPECT_EQ(decode_filename("\0006d2fff"s), "m/\xff");
  EXPECT_EQ(decode_filename("\0006D2FFF"s), "m/\xff");
}

TEST(Filename, OfAnyPathIsDecodedToIt) {
  for (const std::string path : {"a", "/tmp/\xc3\xa4", "m/\xff\x01"}) {
    EXPECT_EQ(decode_filename(encode_filename(path)), path);
  }
}

TEST(Filename, WithANulStandsForNoPath) {
  for (const std::string& name : {"a\0b"s, "a\0"s, "\0"s, "\0006"s, "\0zz"s, "\0+1"s, "\000000"s, "\0006d00"s,
                                  "\0006d\0"s, "\0\0006d"s, "\0 6"s}) {
    EXPECT_EQ(decode_filename(name), std::nullopt);
  }
}

}  // namespace
}  // namespace torch_safetensors::shared
