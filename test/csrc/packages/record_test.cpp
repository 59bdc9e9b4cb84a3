#include "packages/record.h"

#include <ATen/Functions.h>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::packages {
namespace {

using Map = std::unordered_map<std::string, std::string>;

/// `w` is also called `tied`; there is no constant.
const std::string kWeights =
    R"({"__metadata__":{"tied":"w","format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
    R"("b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}})";
const std::string kNoConstants = "02000000000000007b7d";

Map metadata(const std::string& weights = kWeights, const std::string& constants = kNoConstants) {
  return {{"torch_safetensors.weights", weights}, {"torch_safetensors.constants", constants}};
}

TEST(RecordTest, KnowsWeightsByAllOfTheirNames) {
  const Record record(metadata());
  EXPECT_EQ(record.weight("w"), record.weight("tied"));
  EXPECT_EQ(record.weight("w")->name, "w");
  EXPECT_EQ(record.weight("format"), nullptr);
  EXPECT_TRUE(record.knows("tied") && record.knows("b"));
  EXPECT_FALSE(record.knows("x"));
  EXPECT_EQ(record.constants().size(), 0U);
}

TEST(RecordTest, FindsAWeightUnderAnotherNameInAFile) {
  const Record record(metadata());
  const std::string json = R"({"tied":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const io::TestDirectory directory;
  const tensors::Checkpoint file(write_safetensors(directory / "m", json, std::string(8, 0)), "auto");
  EXPECT_EQ(record.find_in(file, *record.weight("w"))->name, "tied");
  EXPECT_EQ(record.find_in(file, *record.weight("b")), nullptr);
}

TEST(RecordTest, HoldsConstants) {
  TensorDict constants;
  constants.insert("c", at::arange(3, at::kByte));
  const at::Tensor bytes = save(constants);
  std::string digits;
  for (int64_t i = 0; i < bytes.numel(); ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    const uint8_t byte = bytes.const_data_ptr<uint8_t>()[i];
    (digits += kDigits[byte / 16]) += kDigits[byte % 16];
  }
  const Record record(metadata(kWeights, digits));
  EXPECT_TRUE(at::equal(record.constants().at("c"), at::arange(3, at::kByte)));
}

TEST(RecordTest, RefusesWhatIsNotOne) {
  expect_error<SafetensorError>("package: it does not record its weights", [] { Record{Map{}}; });
  expect_error<SafetensorError>("package: ", [] { Record{metadata("{")}; });
  expect_error<SafetensorError>("package: its constants are an odd number of hexadecimal digits, 21",
                                [] { Record{metadata(kWeights, kNoConstants + "0")}; });
  expect_error<SafetensorError>("package: its constants are not hexadecimal at digit 2",
                                [] { Record{metadata(kWeights, "02x0")}; });
  expect_error<SafetensorError>("package: no checksums to compare with",
                                [] { Record(metadata()).require_checksums(); });
}

}  // namespace
}  // namespace torch_safetensors::packages
