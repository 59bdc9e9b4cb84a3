#include <ATen/Functions.h>
#include <torch/csrc/jit/api/module.h>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors {
namespace {

using Names = std::vector<std::string>;

/// As scripting makes it: a submodule shares its weight with the module, and there is a buffer.
torch::jit::Module tied(float value) {
  torch::jit::Module inner("Inner"), model("Tied");
  const at::Tensor weight = at::full({2, 3}, value).set_requires_grad(true);
  inner.register_parameter("weight", weight, /*is_buffer=*/false);
  model.register_module("inner", inner);
  model.register_parameter("again", weight, /*is_buffer=*/false);
  model.register_parameter("bias", at::full({2}, value), /*is_buffer=*/false);
  model.register_buffer("steps", at::full({}, value, at::kLong));
  return model;
}

class JitModule : public testing::Test {
 protected:
  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "m";
};

TEST_F(JitModule, ComesBackWithItsTie) {
  save_model(tied(5), path_);
  EXPECT_EQ(keys(path_), (Names{"steps", "again", "bias"}));
  EXPECT_EQ(metadata(path_).at("inner.weight"), "again");
  torch::jit::Module model = tied(1);
  const LoadModelResult result = load_model(model, path_);
  EXPECT_EQ(result.missing, Names());
  EXPECT_EQ(result.unexpected, Names());
  const at::Tensor weight = model.attr("inner").toModule().attr("weight").toTensor();
  EXPECT_TRUE(at::equal(weight, at::full({2, 3}, 5.F)));
  EXPECT_TRUE(weight.is_same(model.attr("again").toTensor()));
  EXPECT_TRUE(weight.is_leaf() && weight.requires_grad());
  EXPECT_EQ(model.attr("steps").toTensor().item<int>(), 5);
}

TEST_F(JitModule, IsSavedAligned) {
  const auto save_with = [&](int64_t alignment) {
    save_model(tied(5), path_, std::nullopt, /*force_contiguous=*/true, /*fsync=*/false, /*checksum=*/false,
               alignment);
  };
  save_with(4096);
  EXPECT_EQ(io::read_file(path_).size(), 4096U + 40U);
  torch::jit::Module model = tied(1);
  EXPECT_EQ(load_model(model, path_).missing, Names());
  expect_error<c10::ValueError>("alignment must be 0 or a power of two from 8 to 4096, not 12",
                                [&] { save_with(12); });
}

TEST_F(JitModule, IsUnchangedWhenRefused) {
  TensorDict tensors;
  tensors.insert("again", at::zeros({2, 3}));
  tensors.insert("bias", at::zeros({3}));
  tensors.insert("x", at::zeros({3}));
  save_file(tensors, path_);
  torch::jit::Module model = tied(1);
  expect_error<SafetensorError>(path_ +
                                    ": Error(s) in loading state_dict for Tied:"
                                    "\n    Missing key(s) in state_dict: \"steps\""
                                    "\n    Unexpected key(s) in state_dict: \"x\""
                                    "\n    size mismatch for bias: the file holds [3] but the model has [2]",
                                [&] { load_model(model, path_); });
  expect_error<SafetensorError>("size mismatch for bias",
                                [&] { load_model(model, path_, /*strict=*/false); });
  for (const at::Tensor& tensor : model.parameters()) {
    EXPECT_TRUE(at::equal(tensor, at::ones_like(tensor)));
  }
}

TEST_F(JitModule, SavedAgainIsTheSameFile) {
  save_model(tied(5), path_);
  const std::string before = io::read_file(path_);
  torch::jit::Module model = tied(1);
  load_model(model, path_, /*strict=*/true, "pread");
  save_model(model, path_);
  EXPECT_EQ(io::read_file(path_), before);
}

TEST_F(JitModule, AnEmptyOneIsAnEmptyFile) {
  torch::jit::Module model("M");
  save_model(model, path_);
  EXPECT_EQ(io::read_file(path_).size(), 16U);
  EXPECT_EQ(load_model(model, path_).missing, Names());
}

TEST_F(JitModule, WithoutAFileIsAnOsError) {
  torch::jit::Module model = tied(1);
  expect_error<OsError>("[Errno 2]", [&] { load_model(model, path_); });
}

}  // namespace
}  // namespace torch_safetensors
