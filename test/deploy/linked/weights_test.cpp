#include <ATen/Functions.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch_safetensors/errors.h>
#include <torch_safetensors/packages.h>

#include <atomic>
#include <thread>

#include "process.h"

namespace ts = torch_safetensors;

namespace {

/// `x @ weight.t() + bias + constant`, where the package has the constant and a file the rest.
class Weights : public testing::Test {
 protected:
  static void save(const std::string& name, float value) {
    ts::TensorDict tensors;
    tensors.insert("weight", at::full({2, 3}, value));
    tensors.insert("bias", at::full({2}, value));
    ts::save_file(tensors, data(name));
  }

  static at::Tensor expected(float value) { return at::full({4, 2}, 3 * value + value + 10); }

  at::Tensor run() { return loader_.run({at::ones({4, 3})}).at(0); }

  static inline const std::string kFirst = data("first.safetensors");
  torch::inductor::AOTIModelPackageLoader loader_{data("weightless.pt2"), "model", false, /*num_runners=*/2};
};

TEST_F(Weights, AreMapped) {
  save("first.safetensors", 1);
  const auto constants = ts::load_constants(loader_, kFirst);
  EXPECT_EQ(mapped_files("first.safetensors").size(), 1U);
  EXPECT_TRUE(at::equal(run(), expected(1)));
}

TEST_F(Weights, ThoseThatWereSwappedAreGivenBack) {
  save("first.safetensors", 1);
  auto constants = ts::load_constants(loader_, kFirst);
  for (int i = 0; i < 5; ++i) {
    const std::string name = "swapped" + std::to_string(i) + ".safetensors";
    save(name, static_cast<float>(i));
    constants = ts::swap(loader_, data(name));
    EXPECT_TRUE(at::equal(run(), expected(static_cast<float>(i))));
    EXPECT_EQ(mapped_files("swapped").size(), 1U);
  }
  EXPECT_TRUE(mapped_files("first.safetensors").empty());
}

TEST_F(Weights, AreSwappedWhileThreadsRunThem) {
  save("first.safetensors", 1);
  save("second.safetensors", 2);
  ts::PackagedModel model(data("weightless.pt2"), kFirst, {}, /*num_runners=*/2);
  std::atomic<bool> done = false;
  std::atomic<int> runs = 0, mixed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!done) {
        const at::Tensor result = model.run({at::ones({4, 3})}).at(0);
        mixed += !at::equal(result, expected(1)) && !at::equal(result, expected(2));
        ++runs;
      }
    });
  }
  for (int i = 0; i < 200 || runs < 1000; ++i) {
    const ts::ConstantsOptions options{.backend = i % 3 == 0 ? "mmap" : "pread"};
    model.swap(data(i % 2 == 0 ? "second.safetensors" : "first.safetensors"), options, /*in_place=*/true);
  }
  done = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(mixed, 0);
}

TEST_F(Weights, ThoseThatDoNotFitAreRefusedAndTheOldStay) {
  save("first.safetensors", 1);
  const auto constants = ts::load_constants(loader_, kFirst);
  ts::TensorDict tensors;
  tensors.insert("weight", at::ones({2, 4}));
  tensors.insert("other", at::ones({2}));
  ts::save_file(tensors, data("other.safetensors"));
  try {
    const auto others = ts::swap(loader_, data("other.safetensors"));
    FAIL() << "it took them";
  } catch (const ts::SafetensorError& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find(data("other.safetensors") + ": these are not weights of this package:"), 0U) << text;
    for (const char* part : {"missing 'bias'", "unexpected 'other'",
                             "different 'weight': the package needs F32 [2, 3], the file has F32 [2, 4]"}) {
      EXPECT_NE(text.find(part), std::string::npos) << text;
    }
  }
  EXPECT_TRUE(at::equal(run(), expected(1)));
}

TEST(WeightsOfAnotherPackage, ItMustRecordThem) {
  torch::inductor::AOTIModelPackageLoader loader(data("package.pt2"));
  EXPECT_THROW((void)ts::load_constants(loader, data("weights.safetensors")), ts::SafetensorError);
}

}  // namespace
