#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "operators.h"

namespace {

class Package : public testing::Test {
 protected:
  void SetUp() override {
    save_weights();
    for (const char* name : {"dict.safetensors", "lists.safetensors"}) {
      save(data(name), {{"y", at::zeros({4, 2})}});
    }
  }

  at::Tensor run() { return loader_.run({at::ones({4, 3})}).at(0); }

  /// Runs on weights that are not those of the packaging.
  void expect_refused(const std::string& message) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      try {
        run();
        FAIL() << "the package ran on a file that differs";
      } catch (const std::exception& error) {
        EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
      }
    }
    EXPECT_TRUE(at::equal(load(data("dict.safetensors")).at("y"), at::zeros({4, 2})));
    save_weights();
    EXPECT_TRUE(at::equal(run(), expected() * 2));
  }

  torch::inductor::AOTIModelPackageLoader loader_{data("package.pt2")};
};

TEST_F(Package, LoadsAndSaves) {
  for (int run = 0; run < 3; ++run) {
    SetUp();
    // The sum of what it computed and of what it loaded from the file it had just saved.
    EXPECT_TRUE(at::equal(this->run(), expected() * 2));
    EXPECT_TRUE(at::equal(load(data("dict.safetensors")).at("y"), expected()));
    EXPECT_TRUE(at::equal(load(data("lists.safetensors")).at("y"), expected() + 1));
    const auto metadata = call("metadata", {data("dict.safetensors")}).toGenericDict();
    EXPECT_EQ(metadata.at("made by").toStringRef(), "a package");
  }
}

TEST_F(Package, ValuesMayChange) {
  save(weights(), {{"weight", at::zeros({2, 3})}, {"bias", at::full({2}, 5.0F)}});
  EXPECT_TRUE(at::equal(run(), at::full({4, 2}, 10.0F)));
}

TEST_F(Package, AnotherShapeIsRefused) {
  save(weights(), {{"weight", at::zeros({2, 4})}, {"bias", at::ones({2})}});
  expect_refused(weights() + ": tensor 'weight': the file holds F32[2,4] but F32[2,3] is expected");
}

TEST_F(Package, AnotherDtypeIsRefused) {
  save(weights(), {{"weight", at::zeros({2, 3}, at::kLong)}, {"bias", at::ones({2})}});
  expect_refused(weights() + ": tensor 'weight': the file holds I64[2,3] but F32[2,3] is expected");
}

TEST_F(Package, AMissingNameIsRefused) {
  save(weights(), {{"weight", at::zeros({2, 3})}});
  expect_refused(weights() + ": tensor 'bias': not in this file");
}

TEST_F(Package, ANameMoreIsRefused) {
  save(weights(), {{"weight", at::zeros({2, 3})}, {"bias", at::ones({2})}, {"more", at::ones({2})}});
  expect_refused(weights() + ": tensor 'more': not expected: the file holds 3 tensors but 2 are expected");
}

TEST_F(Package, AMissingFileIsRefused) {
  std::filesystem::remove(weights());
  expect_refused("[Errno 2] No such file or directory: '" + weights() + "'");
}

}  // namespace
