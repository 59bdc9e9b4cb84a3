#include "tensors/filename.h"

#include <c10/util/Exception.h>

#include "tensors/safetensors_file.h"

namespace torch_safetensors::tensors {
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

TEST(Filename, WithANulIsRefused) {
  for (const std::string& name : {"a\0b"s, "a\0"s, "\0"s, "\0006"s, "\0zz"s, "\0+1"s, "\000000"s, "\0006d00"s,
                                  "\0006d\0"s, "\0\0006d"s, "\0 6"s}) {
    expect_error<c10::ValueError>("embedded null character in path", [&] { decode_filename(name); });
  }
}

}  // namespace
}  // namespace torch_safetensors::tensors
