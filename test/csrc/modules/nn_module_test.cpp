#include <ATen/Functions.h>
#include <torch/nn/module.h>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors {
namespace {

using Names = std::vector<std::string>;

/// A layer twice under one weight, and a buffer.
struct Tied : torch::nn::Module {
  explicit Tied(float value) : torch::nn::Module("Tied") {
    auto inner = std::make_shared<torch::nn::Module>("Inner");
    weight = inner->register_parameter("weight", at::full({2, 3}, value));
    register_module("inner", inner);
    register_parameter("again", weight);
    bias = register_parameter("bias", at::full({2}, value));
    steps = register_buffer("steps", at::full({}, value, at::kLong));
  }

  at::Tensor weight, bias, steps;
};

class NnModule : public testing::Test {
 protected:
  void save(const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
    TensorDict dict;
    for (const auto& [name, tensor] : tensors) {
      dict.insert(name, tensor);
    }
    save_file(dict, path_);
  }

  /// The model keeps its ones.
  void expect_refused(std::string_view text, bool strict = true) {
    Tied model(1);
    expect_error<SafetensorError>(text, [&] { load_model(model, path_, strict); });
    for (const at::Tensor& tensor : {model.weight, model.bias, model.steps}) {
      EXPECT_TRUE(at::equal(tensor, at::ones_like(tensor)));
      EXPECT_EQ(tensor._version(), Tied(1).weight._version());
    }
  }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "m";
};

TEST_F(NnModule, ComesBackWithItsTie) {
  save_model(Tied(5), path_);
  EXPECT_EQ(keys(path_), (Names{"steps", "again", "bias"}));
  EXPECT_EQ(metadata(path_).at("inner.weight"), "again");
  Tied model(1);
  const LoadModelResult result = load_model(model, path_);
  EXPECT_EQ(result.missing, Names());
  EXPECT_EQ(result.unexpected, Names());
  EXPECT_TRUE(at::equal(model.weight, at::full({2, 3}, 5.F)));
  EXPECT_EQ(model.steps.item<int>(), 5);
  EXPECT_TRUE(model.weight.is_leaf() && model.weight.requires_grad());
}

TEST_F(NnModule, IsSavedAligned) {
  const auto save_with = [&](int64_t alignment) {
    save_model(Tied(5), path_, std::nullopt, /*force_contiguous=*/true, /*fsync=*/false, /*checksum=*/false,
               alignment);
  };
  save_with(4096);
  EXPECT_EQ(io::read_file(path_).size(), 4096U + 40U);
  Tied model(1);
  EXPECT_EQ(load_model(model, path_).missing, Names());
  expect_error<c10::ValueError>("alignment must be 0 or a power of two from 8 to 4096, not 12",
                                [&] { save_with(12); });
}

TEST_F(NnModule, EitherNameOfATieWillDo) {
  save({{"inner.weight", at::full({2, 3}, 4.F)},
        {"bias", at::zeros({2})},
        {"steps", at::zeros({}, at::kLong)}});
  Tied model(1);
  EXPECT_EQ(load_model(model, path_).missing, Names());
  EXPECT_EQ(model.weight.sum().item<float>(), 24);
}

TEST_F(NnModule, BothNamesOfATieHoldTheSame) {
  const auto with = [&](float other) {
    save({{"again", at::full({2, 3}, 4.F)},
          {"inner.weight", at::full({2, 3}, other)},
          {"bias", at::zeros({2})},
          {"steps", at::zeros({}, at::kLong)}});
  };
  Tied model(1);
  with(4);
  EXPECT_EQ(load_model(model, path_).unexpected, Names());
  with(3);
  expect_refused("Unexpected key(s) in state_dict: \"inner.weight\"");
}

TEST_F(NnModule, AMisfitChangesNothing) {
  save({{"bias", at::zeros({2})}, {"z", at::zeros({1})}, {"y", at::zeros({1})}});
  expect_refused(path_ +
                 ": Error(s) in loading state_dict for Tied:"
                 "\n    Missing key(s) in state_dict: \"again\", \"steps\""
                 "\n    Unexpected key(s) in state_dict: \"y\", \"z\"");
  save({{"again", at::zeros({2, 3})}, {"bias", at::zeros({3})}, {"steps", at::zeros({}, at::kLong)}});
  expect_refused("size mismatch for bias: the file holds [3] but the model has [2]");
  expect_refused("size mismatch for bias", /*strict=*/false);
}

TEST_F(NnModule, WithoutStrictNamesAreForgiven) {
  save({{"bias", at::zeros({2}, at::kHalf)}, {"z", at::zeros({1})}});
  Tied model(1);
  const LoadModelResult result = load_model(model, path_, /*strict=*/false, "pread");
  EXPECT_EQ(result.missing, (Names{"again", "steps"}));
  EXPECT_EQ(result.unexpected, Names{"z"});
  EXPECT_TRUE(at::equal(model.bias, at::zeros({2})));
}

TEST_F(NnModule, MetadataOfTheCallerWins) {
  Metadata mine;
  mine.insert("inner.weight", "mine");
  save_model(Tied(1), path_, mine);
  EXPECT_EQ(metadata(path_).at("inner.weight"), "mine");
  EXPECT_EQ(mine.size(), 1U);
}

TEST_F(NnModule, WithoutForceOnlyContiguousTensorsAreSaved) {
  torch::nn::Module model("M");
  model.register_buffer("w", at::arange(6, at::kFloat).view({2, 3}).t());
  expect_error<c10::ValueError>("tensor 'w': is not contiguous",
                                [&] { save_model(model, path_, std::nullopt, /*force_contiguous=*/false); });
  save_model(model, path_);
  EXPECT_TRUE(at::equal(load_tensor(path_, "w"), model.named_buffers()["w"]));
}

TEST_F(NnModule, AnEmptyOneIsAnEmptyFile) {
  torch::nn::Module model("M");
  save_model(model, path_);
  EXPECT_EQ(io::read_file(path_).size(), 16U);
  EXPECT_EQ(load_model(model, path_).missing, Names());
}

}  // namespace
}  // namespace torch_safetensors
