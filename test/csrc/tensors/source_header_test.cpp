#include "tensors/source_header.h"

#include <ATen/Functions.h>

#include <cstring>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::tensors {
namespace {

at::Tensor tensor_of(std::string_view text) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), text.data(), text.size());
  return tensor;
}

std::string header_of(const std::string& end) {
  return R"({"w":{"dtype":"U8","shape":[)" + end + R"(],"data_offsets":[0,)" + end + "]}}";
}

TEST(HeaderSize, IsHeldToTheSizeOfTheSourceIfThatIsKnown) {
  const at::Tensor prefix = tensor_of(std::string("\x10\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(header_size("s", prefix, std::nullopt), 16);
  EXPECT_EQ(header_size("s", prefix, 24), 16);
  expect_error<SafetensorError>(
      "s: invalid header length: the header of 16 bytes ends at byte 24 of a file of 23",
      [&] { header_size("s", prefix, 23); });
  expect_error<SafetensorError>("s: header too small: 2 bytes",
                                [&] { header_size("s", tensor_of("ab"), 2); });
  expect_error<c10::ValueError>("a size must not be negative, as -1 is",
                                [&] { header_size("s", prefix, -1); });
  expect_error<c10::ValueError>("expected a contiguous 1-D uint8 tensor on the CPU",
                                [&] { header_size("s", at::zeros({8}), 9); });
}

TEST(SourceHeader, IsHeldToTheSizeOfTheDataAtOnceOrLater) {
  const at::Tensor json = tensor_of(header_of("12"));
  const std::string message =
      "s: incomplete metadata, file not fully covered: the tensors end at byte 12 but the file has 13 bytes";
  expect_error<SafetensorError>(message, [&] { SourceHeader("s", json, 13); });
  EXPECT_TRUE(SourceHeader("s", json, 12).is_held_to_size());
  const SourceHeader header("s", json, std::nullopt);
  EXPECT_FALSE(header.is_held_to_size());
  EXPECT_EQ(header.data_begin(), 8 + json.numel());
  EXPECT_EQ(header.end(), 8 + json.numel() + 12);
  header.check_data_size(12);
  expect_error<SafetensorError>(message, [&] { header.check_data_size(13); });
}

TEST(SourceHeader, HasPositionsThatFilesCanHave) {
  std::string many;
  for (int i = 0; i < 8; ++i) {
    const auto offset = [&](int j) { return std::to_string((uint64_t{1} << 60) * static_cast<uint64_t>(j)); };
    many += (i == 0 ? "" : ",") + ('"' + std::to_string(i)) + R"(":{"dtype":"U8","shape":[)" + offset(1) +
            R"(],"data_offsets":[)" + offset(i) + "," + offset(i + 1) + "]}";
  }
  expect_error<SafetensorError>(
      "s: the tensors end at byte 9223372036854775808 of the data, and no file is so large",
      [&] { SourceHeader("s", tensor_of("{" + many + "}"), std::nullopt); });
}

}  // namespace
}  // namespace torch_safetensors::tensors
