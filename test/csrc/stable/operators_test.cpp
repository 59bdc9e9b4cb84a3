#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "stable/call.h"
#include "tensors/safetensors_file.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::stable {
namespace {

class StableOperators : public ::testing::Test {
 protected:
  StableOperators() { save_tensors(path_, names_, tensors_); }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "model";
  const Names names_{"bytes", "floats", "none", "one"};
  const std::vector<at::Tensor> tensors_{at::arange(5, at::kByte), at::randn({300, 7}), at::empty({0, 3}),
                                         at::scalar_tensor(3, at::kLong)};
};

TEST_F(StableOperators, LoadWhatTheySave) {
  for (const std::string backend : {"mmap", "pread"}) {
    const std::vector<at::Tensor> loaded = load_tensors(path_, names_, backend);
    ASSERT_EQ(loaded.size(), tensors_.size());
    for (size_t i = 0; i < loaded.size(); ++i) {
      EXPECT_TRUE(at::equal(loaded[i], tensors_[i])) << backend << " " << names_[i];
    }
  }
}

TEST_F(StableOperators, TensorsOutliveTheirFile) {
  std::vector<at::Tensor> loaded = load_tensors(path_, {"floats"}, "mmap");
  std::filesystem::remove(path_);
  EXPECT_TRUE(at::equal(loaded[0], tensors_[1]));
  loaded[0].zero_();  // its pages are private
}

TEST_F(StableOperators, LoadAndSaveBytes) {
  const at::Tensor bytes = call("_save_bytes", names_, tensors_, kNone).at(0).toTensor();
  EXPECT_EQ(std::string(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()),
            io::read_file(path_));
  const torch::jit::Stack loaded = call("_load_bytes", bytes, c10::Device(c10::kCPU));
  const auto names = loaded.at(0).toListRef();
  const auto tensors = loaded.at(1).toTensorVector();
  ASSERT_EQ(names.size(), names_.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const size_t saved = std::ranges::find(names_, names[i].toStringRef()) - names_.begin();
    EXPECT_TRUE(at::equal(tensors[i], tensors_.at(saved)));
  }
}

TEST_F(StableOperators, LoadPartsIntoTensors) {
  at::Tensor out = at::zeros({2, 3});
  call("load_into", path_, "floats", out, std::vector<int64_t>{298, 4});
  EXPECT_TRUE(at::equal(out, tensors_[1].slice(0, 298).slice(1, 4)));
}

TEST_F(StableOperators, SaveAlignedTensors) {
  save_tensors(path_, names_, tensors_, 64);
  EXPECT_TRUE(at::equal(load_tensors(path_, {"floats"}, "mmap")[0], tensors_[1]));
}

TEST_F(StableOperators, ReadNothingOfAMalformedFile) {
  const std::string bytes = io::read_file(path_);
  for (size_t size = 0; size < bytes.size(); size += size < 400 ? 1 : 997) {
    io::write_file(path_, bytes.substr(0, size));
    EXPECT_THROW(load_tensors(path_, names_, "pread"), SafetensorError) << size;
  }
}

}  // namespace
}  // namespace torch_safetensors::stable
