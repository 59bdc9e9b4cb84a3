#include "tensors/checksums.h"

#include <ATen/Functions.h>
#include <torch/csrc/jit/api/module.h>

#include <functional>
#include <map>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/errors.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {
namespace {

at::Tensor bytes_of(const std::string& path) {
  const std::string bytes = io::read_file(path);
  return at::from_blob(const_cast<char*>(bytes.data()), {static_cast<int64_t>(bytes.size())}, at::kByte)
      .clone();
}

using Load = std::function<void(const std::string& path)>;

/// Every function that verifies and takes a file; they read "w", and all but two "v" as well.
const std::map<std::string, Load> kLoads = {
    {"load_file_mmap", [](const auto& path) { load_file(path, at::kCPU, "mmap", true); }},
    {"load_file_pread", [](const auto& path) { load_file(path, at::kCPU, "pread", true); }},
    {"load_file_meta", [](const auto& path) { load_file(path, at::kMeta, "auto", true); }},
    {"load", [](const auto& path) { load(bytes_of(path), at::kCPU, true, true); }},
    {"load_alias", [](const auto& path) { load(bytes_of(path), at::kCPU, false, true); }},
    {"load_tensor", [](const auto& path) { load_tensor(path, "w", at::kCPU, "auto", true); }},
    {"load_tensors", [](const auto& path) { load_tensors(path, {"w"}, at::kCPU, "pread", true); }},
};

class ChecksumsTest : public testing::TestWithParam<std::string> {
 protected:
  void save(bool checksum) {
    TensorDict tensors;
    tensors.insert("v", at::arange(3, at::kInt));
    tensors.insert("w", at::arange(5, at::kByte));
    save_file(tensors, path_, std::nullopt, false, checksum);
  }

  void load() const { kLoads.at(GetParam())(path_); }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "m";
};

TEST_P(ChecksumsTest, AWholeFilePasses) {
  save(true);
  load();
}

TEST_P(ChecksumsTest, EveryBitOfATensorCounts) {
  save(true);
  const std::string whole = io::read_file(path_);
  for (size_t byte = whole.size() - 5; byte < whole.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << bit));
      io::write_file(path_, damaged);
      expect_error<SafetensorError>("tensor 'w': damaged: its checksum is ", [&] { load(); });
    }
  }
}

TEST_P(ChecksumsTest, AFileWithoutThemIsAnError) {
  save(false);
  expect_error<SafetensorError>("no checksums to verify", [&] { load(); });
}

INSTANTIATE_TEST_SUITE_P(
    AllLoads, ChecksumsTest,
    [] {
      std::vector<std::string> names;
      for (const auto& [name, load] : kLoads) {
        names.push_back(name);
      }
      return testing::ValuesIn(names);
    }(),
    [](const auto& info) { return info.param; });

TEST(ChecksumsOfManyTest, ThreadsNameTheFirstDamagedOne) {
  const io::TestDirectory directory;
  const std::string path = directory / "m";
  TensorDict tensors;
  for (int i = 0; i < 200; ++i) {
    tensors.insert("t" + std::to_string(100 + i), at::full({10'000}, i, at::kInt));
  }
  save_file(tensors, path, std::nullopt, false, true);
  std::string bytes = io::read_file(path);
  const size_t data = bytes.size() - 200 * 40'000;
  bytes[data + 150 * 40'000] ^= 1;
  bytes[data + 37 * 40'000 + 39'999] ^= 1;
  io::write_file(path, bytes);
  expect_error<SafetensorError>("tensor 't137': damaged: ", [&] { load_file(path, at::kCPU, "auto", true); });
  expect_error<SafetensorError>("2 tensors of 200 differ", [&] { load_file(path, at::kCPU, "auto", true); });
}

TEST(ChecksumsOfModelTest, LoadModelVerifiesBeforeItWrites) {
  const io::TestDirectory directory;
  const std::string path = directory / "m";
  torch::jit::Module model("M");
  model.register_parameter("w", at::ones({4}), false);
  save_model(model, path, std::nullopt, true, false, true);
  model.attr("w").toTensor().zero_();
  std::string bytes = io::read_file(path);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  io::write_file(path, bytes);
  expect_error<SafetensorError>("damaged", [&] { load_model(model, path, true, "auto", true); });
  EXPECT_EQ(model.attr("w").toTensor().sum().item<float>(), 0.0F);
}

}  // namespace
}  // namespace torch_safetensors::tensors
