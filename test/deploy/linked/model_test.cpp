#include <torch/script.h>
#include <torch/torch.h>
#include <torch_safetensors/torch_safetensors.h>

#include "process.h"

namespace ts = torch_safetensors;

namespace {

/// `encoder.weight` and `decoder.weight` are one tensor; so is the buffer `scale` and its alias.
struct Tied : torch::nn::Module {
  Tied() {
    const torch::Tensor weight = torch::rand({3, 4});
    auto encoder = register_module("encoder", std::make_shared<torch::nn::Module>());
    auto decoder = register_module("decoder", std::make_shared<torch::nn::Module>());
    encoder_weight = encoder->register_parameter("weight", weight);
    decoder_weight = decoder->register_parameter("weight", encoder_weight);
    bias = register_parameter("bias", torch::rand({3}));
    scale = register_buffer("scale", torch::rand({2}));
  }

  torch::Tensor encoder_weight, decoder_weight, bias, scale;
};

torch::jit::Module scripted() {
  torch::jit::Module encoder("encoder"), decoder("decoder"), module("tied");
  const torch::Tensor weight = torch::rand({3, 4});
  encoder.register_parameter("weight", weight, /*is_buffer=*/false);
  decoder.register_parameter("weight", weight, /*is_buffer=*/false);
  module.register_module("encoder", encoder);
  module.register_module("decoder", decoder);
  module.register_parameter("bias", torch::rand({3}), /*is_buffer=*/false);
  module.register_buffer("scale", torch::rand({2}));
  return module;
}

std::map<std::string, torch::Tensor> state(const torch::nn::Module& module) {
  std::map<std::string, torch::Tensor> state;
  for (const auto& item : module.named_parameters()) {
    state[item.key()] = item.value();
  }
  for (const auto& item : module.named_buffers()) {
    state[item.key()] = item.value();
  }
  return state;
}

std::map<std::string, torch::Tensor> state(const torch::jit::Module& module) {
  std::map<std::string, torch::Tensor> state;
  for (const auto& item : module.named_parameters()) {
    state[item.name] = item.value;
  }
  for (const auto& item : module.named_buffers()) {
    state[item.name] = item.value;
  }
  return state;
}

void expect_same(const std::map<std::string, torch::Tensor>& a,
                 const std::map<std::string, torch::Tensor>& b) {
  ASSERT_EQ(a.size(), 4U);
  ASSERT_EQ(b.size(), 4U);
  for (const auto& [name, tensor] : a) {
    EXPECT_TRUE(torch::equal(tensor, b.at(name))) << name;
  }
}

/// Both kinds of modules, under one name each.
struct NnModule {
  Tied module;
};
struct JitModule {
  torch::jit::Module module = scripted();
};

template <typename Kind>
class Model : public testing::Test {
 protected:
  const std::string path_ = data("model.safetensors");
};
using Kinds = testing::Types<NnModule, JitModule>;
TYPED_TEST_SUITE(Model, Kinds);

TYPED_TEST(Model, TiedTensorsAreWrittenOnce) {
  TypeParam saved;
  ts::save_model(saved.module, this->path_);
  const std::vector<std::string> keys = ts::keys(this->path_);
  EXPECT_EQ(std::set<std::string>(keys.begin(), keys.end()),
            (std::set<std::string>{"bias", "decoder.weight", "scale"}));
  EXPECT_EQ(ts::metadata(this->path_).at("encoder.weight"), "decoder.weight");
}

TYPED_TEST(Model, LoadsWhatItSaved) {
  TypeParam saved, loaded;
  ts::Metadata metadata;
  metadata.insert("epoch", "3");
  ts::save_model(saved.module, this->path_, metadata, /*force_contiguous=*/true, /*fsync=*/true);
  EXPECT_EQ(ts::metadata(this->path_).at("epoch"), "3");

  const void* memory = state(loaded.module).at("bias").data_ptr();
  for (const char* backend : {"auto", "mmap", "pread"}) {
    const auto [missing, unexpected] = ts::load_model(loaded.module, this->path_, true, backend);
    EXPECT_TRUE(missing.empty());
    EXPECT_TRUE(unexpected.empty());
    expect_same(state(loaded.module), state(saved.module));
  }
  EXPECT_EQ(state(loaded.module).at("bias").data_ptr(), memory);  // in place
  EXPECT_TRUE(state(loaded.module).at("decoder.weight").is_same(state(loaded.module).at("encoder.weight")));
}

TYPED_TEST(Model, StrictRefusesAndChangesNothing) {
  TypeParam model;
  const torch::Tensor before = state(model.module).at("scale").clone();
  ts::TensorDict tensors;
  tensors.insert("scale", torch::zeros({2}));
  tensors.insert("extra", torch::zeros({1}));
  ts::save_file(tensors, this->path_);
  try {
    ts::load_model(model.module, this->path_);
    FAIL();
  } catch (const ts::SafetensorError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find(this->path_), std::string::npos) << what;
    EXPECT_NE(what.find("Missing key(s) in state_dict: \"bias\", \"decoder.weight\""), std::string::npos)
        << what;
    EXPECT_NE(what.find("Unexpected key(s) in state_dict: \"extra\""), std::string::npos) << what;
  }
  EXPECT_TRUE(torch::equal(state(model.module).at("scale"), before));

  const auto [missing, unexpected] = ts::load_model(model.module, this->path_, /*strict=*/false);
  EXPECT_EQ(missing, (std::vector<std::string>{"bias", "decoder.weight"}));
  EXPECT_EQ(unexpected, std::vector<std::string>{"extra"});
  EXPECT_TRUE(torch::equal(state(model.module).at("scale"), torch::zeros({2})));
}

TYPED_TEST(Model, AnotherShapeIsRefused) {
  TypeParam model;
  ts::TensorDict tensors;
  tensors.insert("scale", torch::zeros({3}));
  ts::save_file(tensors, this->path_);
  EXPECT_THROW(ts::load_model(model.module, this->path_, /*strict=*/false), ts::SafetensorError);
}

TYPED_TEST(Model, AnotherDtypeIsConverted) {
  TypeParam model;
  ts::TensorDict tensors;
  tensors.insert("scale", torch::full({2}, 3, torch::kHalf));
  ts::save_file(tensors, this->path_);
  ts::load_model(model.module, this->path_, /*strict=*/false);
  EXPECT_TRUE(torch::equal(state(model.module).at("scale"), torch::full({2}, 3.0F)));
}

TEST(ModelOfOneKind, LoadsWhatTheOtherSaved) {
  NnModule nn;
  JitModule jit;
  ts::save_model(nn.module, data("model.safetensors"));
  ts::load_model(jit.module, data("model.safetensors"));
  expect_same(state(jit.module), state(nn.module));
}

}  // namespace
