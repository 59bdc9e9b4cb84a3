#include "packages/weights_file.h"

#include <ATen/Functions.h>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::packages {
namespace {

constexpr char kHeader[] = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                           R"("b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}})";

/// A package that was made with a file of `w`, which is also called `tied`, and `b`.
class WeightsFileTest : public testing::Test {
 protected:
  std::string write(const char* header, const std::string& bytes) {
    return write_safetensors(directory_ / "m", header, bytes);
  }

  WeightsFile open(const std::vector<std::string>& names, const std::string& path) {
    return {record_, names, path, {.backend = "pread"}};
  }

  const io::TestDirectory directory_;
  const Record record_{
      {{"torch_safetensors.weights",
        R"({"__metadata__":{"tied":"w"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
        R"("b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}})"},
       {"torch_safetensors.constants", "02000000000000007b7d"}}};
};

TEST_F(WeightsFileTest, ReadsByTheNamesOfThePackage) {
  const std::string path = write(R"({"tied":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                 R"("b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}})",
                                 std::string(8, '\0') + "\7");
  const NamedConstants constants = open({"w", "b"}, path).read(at::kCPU);
  EXPECT_TRUE(at::equal(constants.at("w"), at::zeros({2})));
  EXPECT_EQ(constants.at("b").item<int>(), 7);
  EXPECT_EQ(open({"b"}, path).read(at::kCPU).size(), 1U);
  expect_error<SafetensorError>("missing 'c'", [&] { open({"c"}, path); });
}

TEST_F(WeightsFileTest, ReadsOverTensorsThatAreThere) {
  const std::string path = write(kHeader, std::string(8, '\0') + "\7");
  const NamedConstants constants{{"w", at::ones({2})}, {"b", at::ones({}, at::kByte)}};
  const void* const address = constants.at("w").const_data_ptr();
  open({"w", "b"}, path).read_into(constants);
  EXPECT_TRUE(at::equal(constants.at("w"), at::zeros({2})));
  EXPECT_EQ(constants.at("b").item<int>(), 7);
  EXPECT_EQ(constants.at("w").const_data_ptr(), address);
}

TEST_F(WeightsFileTest, DoesNotAskForWhatThePackageComputes) {
  const std::string path = write(kHeader, std::string(9, '\0'));
  EXPECT_EQ(open({"w", "_FOLDED_CONST_relu"}, path).read(at::kCPU).size(), 1U);
}

}  // namespace
}  // namespace torch_safetensors::packages
