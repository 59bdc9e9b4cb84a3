#include "tensors/prefetch.h"

#include <ATen/Functions.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <thread>

#include "io/child.h"
#include "tensors/fake_device.h"
#include "tensors/safetensors_file.h"

namespace torch_safetensors::tensors {
namespace {

constexpr int64_t kLong = 60'000;
constexpr int64_t kRing = 64 << 10;

class PrefetchTest : public testing::TestWithParam<c10::Device> {
 protected:
  PrefetchTest() {
    fake::reset();
    std::mt19937 random(9);
    for (int i = 0; i < 120; ++i) {
      const auto rows = static_cast<int64_t>(random() % (i % 10 == 0 ? 40'000 : 30));
      tensors_.insert("t" + std::to_string(i), at::arange(i, i + rows, at::kInt));
    }
    save_file(tensors_, path_);
  }
  ~PrefetchTest() override {
    taken_.clear();
    fake::reset();
    EXPECT_EQ(fake::counts().device_bytes, 0);
    EXPECT_EQ(fake::counts().host_bytes, 0);
  }

  c10::intrusive_ptr<Prefetch> start(int64_t threads = 3,
                                     std::optional<int64_t> buffer = std::nullopt) const {
    auto file = c10::make_intrusive<SafeOpen>(path_, at::kCPU, "auto");
    const auto names = file->keys();
    const std::vector<int64_t> whole(names.size(), -1);
    return c10::make_intrusive<Prefetch>(std::move(file), names, whole, whole, GetParam(), threads, buffer,
                                         kRing);
  }

  void check(const std::string& name, const at::Tensor& tensor) {
    ASSERT_EQ(tensor.device(), GetParam());
    ASSERT_EQ(tensor.storage().nbytes(), tensors_.at(name).nbytes());
    ASSERT_TRUE(at::equal(tensor.to(at::kCPU), tensors_.at(name))) << name;
    taken_.push_back(tensor);
  }

  /// Takes all that is left.
  size_t take_rest(Prefetch& loader) {
    size_t count = 0;
    for (;;) {
      const auto [name, tensor] = loader.take_any(kLong);
      if (!name) {
        return count;
      }
      check(*name, *tensor);
      ++count;
    }
  }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "m";
  TensorDict tensors_;
  std::vector<at::Tensor> taken_;
};

INSTANTIATE_TEST_SUITE_P(On, PrefetchTest, testing::Values(c10::Device(c10::kCPU), fake::kDevice),
                         [](const auto& info) { return info.param.is_cpu() ? "Cpu" : "Fake"; });

TEST_P(PrefetchTest, HandsOutEachTensorOnceWhateverTheThreadsAndTheBuffer) {
  for (const int64_t threads : {1, 2, 5, 16}) {
    for (const int64_t buffer : {int64_t{1}, int64_t{100'000}, int64_t{1} << 30}) {
      const auto loader = start(threads, buffer);
      check("t7", *loader->take("t7", kLong));
      check("t110", *loader->take("t110", kLong));
      EXPECT_EQ(take_rest(*loader), 118);
      expect_error<SafetensorError>("tensor 't7': was handed out already", [&] { loader->take("t7", 0); });
    }
  }
}

TEST_P(PrefetchTest, IsReadyForTheStreamThatIsCurrentWhenTaken) {
  const auto loader = start();
  const c10::StreamGuard guard(c10::Stream(c10::Stream::UNSAFE, fake::kDevice, 7));
  EXPECT_EQ(take_rest(*loader), 120);
}

TEST_P(PrefetchTest, MemoryIsNotUsedAnewWhileTheTakersStreamReadsIt) {
  if (GetParam().is_cpu()) {
    return;
  }
  const auto loader = start(2, 1);
  const c10::StreamGuard guard(c10::Stream(c10::Stream::UNSAFE, fake::kDevice, 7));
  std::vector<std::pair<std::string, std::string>> copies;
  copies.reserve(200);
  for (;;) {
    const auto [name, tensor] = loader->take_any(kLong);
    if (!name) {
      break;
    }
    auto& [key, bytes] = copies.emplace_back(*name, std::string(tensor->nbytes(), '\0'));
    const void* const from = tensor->const_data_ptr();
    // The taker reads late, and drops the tensor early.
    fake::enqueue([from, into = bytes.data(), size = bytes.size()] {
      std::copy_n(static_cast<const char*>(from), size, into);
    });
  }
  fake::reset();
  for (const auto& [name, bytes] : copies) {
    const at::Tensor& expected = tensors_.at(name);
    ASSERT_TRUE(bytes == std::string(static_cast<const char*>(expected.const_data_ptr()), expected.nbytes()))
        << name;
  }
}

TEST_P(PrefetchTest, ReadsNoFurtherAheadThanTheBuffer) {
  if (GetParam().is_cpu()) {
    return;
  }
  const auto loader = start(4, 100'000);
  size_t largest = 0;
  for (const auto& item : tensors_) {
    largest = std::max(largest, item.value().nbytes());
  }
  for (;;) {
    // One unit may begin when nothing else is under way, however large.
    ASSERT_LE(fake::counts().device_bytes, 100'000 + largest + 2 * 4096 * 64);
    const auto [name, tensor] = loader->take_any(kLong);
    if (!name) {
      break;
    }
  }
}

TEST_P(PrefetchTest, TensorsThatAreTakenKeepNothingAlive) {
  const auto loader = start();
  EXPECT_EQ(take_rest(*loader), 120);
  taken_.clear();
  EXPECT_EQ(fake::counts().device_bytes, 0);
  while (fake::counts().host_bytes != 0) {
    std::this_thread::yield();  // the last reader is about to give it back; a test that hangs has failed
  }
}

TEST_P(PrefetchTest, CloseDropsWhatWasNotTaken) {
  const auto loader = start();
  const at::Tensor tensor = *loader->take("t20", kLong);
  loader->close();
  loader->close();
  check("t20", tensor);
  fake::reset();
  if (!GetParam().is_cpu()) {
    EXPECT_EQ(fake::counts().device_bytes, tensor.nbytes());
  }
  EXPECT_EQ(loader->names().size(), 120);
  expect_error<SafetensorError>("the prefetch loader is closed", [&] { loader->take("t3", 0); });
  expect_error<SafetensorError>("the prefetch loader is closed", [&] { loader->take_any(0); });
}

TEST_P(PrefetchTest, TellsOfATruncatedFile) {
  auto file = c10::make_intrusive<SafeOpen>(path_, at::kCPU, "auto");
  ASSERT_EQ(::truncate(path_.c_str(), 9000), 0);
  const Prefetch loader(file, {"t0"}, {-1}, {-1}, GetParam(), 2, std::nullopt, kRing);
  expect_error<OsError>("it was truncated after it was opened", [&] {
    auto& waiting = const_cast<Prefetch&>(loader);
    while (!waiting.take("t0", kLong)) {
    }
  });
}

TEST_P(PrefetchTest, LoadsRows) {
  auto file = c10::make_intrusive<SafeOpen>(path_, at::kCPU, "auto");
  Prefetch loader(file, {"t10", "t20"}, {5, 7}, {1005, 7}, GetParam(), 2, std::nullopt, kRing);
  EXPECT_TRUE(at::equal(loader.take("t10", kLong)->to(at::kCPU), tensors_.at("t10").slice(0, 5, 1005)));
  EXPECT_EQ(loader.take("t20", kLong)->numel(), 0);
}

TEST_P(PrefetchTest, TakesTheNumberOfThreadsFromTheEnvironment) {
  const auto make = [&] {
    auto file = c10::make_intrusive<SafeOpen>(path_, at::kCPU, "auto");
    const auto names = file->keys();
    const std::vector<int64_t> whole(names.size(), -1);
    return c10::make_intrusive<Prefetch>(std::move(file), names, whole, whole, GetParam(), std::nullopt,
                                         std::nullopt, kRing);
  };
  EXPECT_EQ(take_rest(*make()), 120);
  ::setenv("TORCH_SAFETENSORS_THREADS", "0", 1);
  expect_error<c10::ValueError>("TORCH_SAFETENSORS_THREADS: expected a number from 1, not '0'", make);
  ::setenv("TORCH_SAFETENSORS_THREADS", "2", 1);
  EXPECT_EQ(take_rest(*make()), 120);
  ::unsetenv("TORCH_SAFETENSORS_THREADS");
}

TEST_P(PrefetchTest, RefusesWhatItCannotLoad) {
  const auto make = [&](const std::string& name, int64_t begin, int64_t end, c10::Device device,
                        int64_t threads = 1, int64_t buffer = 1) {
    auto file = c10::make_intrusive<SafeOpen>(path_, at::kCPU, "auto");
    c10::make_intrusive<Prefetch>(file, std::vector{name}, std::vector{begin}, std::vector{end}, device,
                                  threads, buffer, std::nullopt);
  };
  const c10::Device device = GetParam();
  expect_error<SafetensorError>("tensor 'x': not in this file", [&] { make("x", -1, -1, device); });
  expect_error<c10::ValueError>("rows [3, 2) are not within its", [&] { make("t0", 3, 2, device); });
  expect_error<c10::ValueError>("to the meta device", [&] { make("t0", -1, -1, at::kMeta); });
  expect_error<c10::ValueError>("threads must be positive, not 0", [&] { make("t0", -1, -1, device, 0); });
  expect_error<c10::ValueError>("buffer_size must be positive, not 0",
                                [&] { make("t0", -1, -1, device, 1, 0); });
}

TEST_P(PrefetchTest, RefusesPlansThatDoNotFit) {
  TensorDict scalar;
  scalar.insert("s", at::ones({}));
  const std::string path = directory_ / "s";
  save_file(scalar, path);
  const auto make = [&](const std::vector<int64_t>& begins, const std::vector<int64_t>& ends) {
    auto file = c10::make_intrusive<SafeOpen>(path, at::kCPU, "auto");
    c10::make_intrusive<Prefetch>(file, std::vector<std::string>{"s"}, begins, ends, GetParam(), 1,
                                  std::nullopt, std::nullopt);
  };
  expect_error<c10::ValueError>("tensor 's': has no dimension to slice", [&] { make({0}, {1}); });
  expect_error<c10::ValueError>("prefetch needs a begin and an end for each name", [&] { make({0}, {}); });
  expect_error<c10::ValueError>("prefetch needs a begin and an end for each name", [&] { make({}, {0}); });
}

TEST_P(PrefetchTest, AForkedChildHasNothingOfIt) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizers' own locks do not survive a fork of a program with several threads";
#endif
  auto loader = start(4, 1);
  EXPECT_EQ(io::run_in_child([&] {
              try {
                loader->take("t3", 0);
                throw std::runtime_error("handed out");
              } catch (const SafetensorError&) {
              }
              loader->close();
              loader.reset();
            }),
            0);
  EXPECT_EQ(take_rest(*loader), 120);
}

}  // namespace
}  // namespace torch_safetensors::tensors
