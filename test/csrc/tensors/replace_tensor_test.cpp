#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <vector>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/replace.h"

namespace torch_safetensors {
namespace {

using Names = std::vector<std::string>;

class ReplaceTensorTest : public ::testing::TestWithParam<bool> {
 protected:
  std::string saved(const at::Tensor& w) const {
    TensorDict tensors;
    tensors.insert("v", at::arange(3));
    tensors.insert("w", w);
    save_file(tensors, path_, std::nullopt, false, GetParam());
    return io::read_file(path_);
  }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "model";
  const at::Tensor old_ = at::randn({30, 40});
  const at::Tensor new_ = at::randn({30, 40});
};

TEST_P(ReplaceTensorTest, WritesWhatASaveWouldWrite) {
  const std::string expected = saved(new_);
  saved(old_);
  replace_tensor(path_, "w", new_);
  EXPECT_TRUE(io::read_file(path_) == expected);
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_P(ReplaceTensorTest, TakesWhatIsMappedFromTheFile) {
  const std::string expected = saved(old_.flip(0).contiguous());
  saved(old_);
  replace_tensor(path_, "w", load_tensor(path_, "w", at::kCPU, "mmap").flip(0));
  EXPECT_TRUE(io::read_file(path_) == expected);
}

TEST_P(ReplaceTensorTest, RefusesOtherTypes) {
  const std::string before = saved(old_);
  expect_error<c10::ValueError>(
      "tensor 'w': the file holds Float [30, 40] but the tensor to replace it is Float [40, 30]",
      [&] { replace_tensor(path_, "w", new_.t()); });
  expect_error<SafetensorError>("tensor 'x': not in this file", [&] { replace_tensor(path_, "x", new_); });
  EXPECT_TRUE(io::read_file(path_) == before);
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_P(ReplaceTensorTest, HasNothingToRecover) {
  saved(old_);
  EXPECT_FALSE(recover(path_));
  EXPECT_THROW(recover(directory_ / "none"), OsError);
}

TEST_P(ReplaceTensorTest, RefusesTheUndoFileOfAnother) {
  const std::string before = saved(old_);
  TensorDict undo;
  undo.insert("w", new_);
  save_file(undo, path_ + ".undo", std::nullopt, false, true);
  expect_error<SafetensorError>("is of another file", [&] { recover(path_); });
  expect_error<SafetensorError>("is of another file", [&] { replace_tensor(path_, "w", new_); });
  EXPECT_TRUE(io::read_file(path_) == before);
}

INSTANTIATE_TEST_SUITE_P(, ReplaceTensorTest, testing::Bool(),
                         [](const auto& parameter) { return parameter.param ? "Checksums" : "Plain"; });

}  // namespace
}  // namespace torch_safetensors
