#include <dlfcn.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <sstream>

#include "operators.h"

namespace {

std::vector<std::string> libraries() {
  std::vector<std::string> paths;
  std::istringstream text(environment("LIBRARIES"));
  for (std::string path; std::getline(text, path, ':');) {
    paths.push_back(path);
  }
  return paths;
}

class Libraries : public testing::Environment {
  void SetUp() override {
    for (const std::string& path : libraries()) {
      ASSERT_NE(dlopen(path.c_str(), RTLD_NOW), nullptr) << dlerror();
    }
    ASSERT_EQ(mapped_files("libtorch_safetensors").size(), libraries().size());
  }

  void TearDown() override { expect_no_python(); }
};

[[maybe_unused]] const auto* const kLibraries = testing::AddGlobalTestEnvironment(new Libraries);

enum class Way { kAsLoaded, kFrozen, kOptimised };

class Script : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override { save_weights(); }

  static torch::jit::Module load_module() {
    torch::jit::Module module = torch::jit::load(data("module.pt"));
    module.eval();
    if (GetParam() != Way::kAsLoaded) {
      module = torch::jit::freeze(module, std::vector<std::string>{"every_operator"});
    }
    if (GetParam() == Way::kOptimised) {
      module = torch::jit::optimize_for_inference(module, {"every_operator"});
    }
    return module;
  }
};

TEST_P(Script, LoadsItsOwnWeights) {
  torch::jit::Module module = load_module();
  for (int run = 0; run < 3; ++run) {  // the second run profiles, the third one is optimised
    EXPECT_TRUE(at::equal(module.forward({at::ones({4, 3})}).toTensor(), expected()));
  }
  save(weights(), {{"weight", at::zeros({2, 3})}, {"bias", at::full({2}, 5.0F)}});
  // The bias comes from a SafeOpen, which keeps the file that it opened.
  EXPECT_TRUE(at::equal(module.forward({at::ones({4, 3})}).toTensor(), at::ones({4, 2})));
}

TEST_P(Script, EveryOperator) {
  torch::jit::Module module = load_module();
  const at::Tensor x = at::arange(3, at::kFloat);
  for (int run = 0; run < 3; ++run) {
    const auto results =
        module.get_method("every_operator")({x, data("script.safetensors")}).toTensorVector();
    ASSERT_EQ(results.size(), 6U);
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_TRUE(at::equal(results[i], x + static_cast<int64_t>(i))) << i;
    }
  }
  EXPECT_TRUE(at::equal(load(data("script.safetensors")).at("last"), x + 6));
}

TEST_P(Script, ErrorsNameTheFile) {
  torch::jit::Module module = load_module();
  save(weights(), {{"bias", at::ones({2})}});
  try {
    module.forward({at::ones({4, 3})});
    FAIL();
  } catch (const std::exception& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find(weights() + ": tensor 'weight': not in this file"), std::string::npos) << what;
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, Script, testing::Values(Way::kAsLoaded, Way::kFrozen, Way::kOptimised));

TEST(Module, IsNotLoadedWithoutItsFile) {
  std::filesystem::remove(weights());
  try {
    torch::jit::load(data("module.pt"));
    FAIL();
  } catch (const std::exception& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("[Errno 2] No such file or directory: '" + weights() + "'"), std::string::npos)
        << what;
  }
}

}  // namespace
