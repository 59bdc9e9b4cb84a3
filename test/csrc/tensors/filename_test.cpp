#include "tensors/filename.h"

#include <c10/util/Exception.h>

#include "tensors/safetensors_file.h"

namespace torch_safetensors::tensors {
namespace {

using namespace std::string_literals;

TEST(OperatorFilename, IsDecoded) { EXPECT_EQ(decode_filename("\0006d2fff"s), "m/\xff"); }

TEST(OperatorFilename, WithANulIsRefused) {
  expect_error<c10::ValueError>("embedded null character in path", [] { decode_filename("a\0b"s); });
}

}  // namespace
}  // namespace torch_safetensors::tensors
