#include "tensors/device_load.h"

#include <ATen/Functions.h>
#include <c10/core/StreamGuard.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <random>

#include "io/test_directory.h"
#include "tensors/fake_device.h"
#include "tensors/safetensors_file.h"
#include "tensors/write_into.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {
namespace {

constexpr size_t kRing = 64 << 10;  // 8 blocks of 8 KiB
constexpr size_t kShared = 512;

std::string bytes_on(const at::Tensor& tensor) {
  const at::Tensor cpu = tensor.to(at::kCPU);
  return {static_cast<const char*>(cpu.const_data_ptr()), cpu.nbytes()};
}

/// Everything runs against the CPU and against a device whose copies come as late as they may.
class DeviceLoad : public testing::TestWithParam<c10::Device> {
 protected:
  DeviceLoad() { fake::reset(); }
  ~DeviceLoad() override {
    results_.clear();
    fake::reset();
    EXPECT_EQ(fake::counts().device_bytes, 0);
    EXPECT_EQ(fake::counts().host_bytes, 0);
  }

  void want(size_t nbytes, size_t gap = 0) {
    source_ += gap;
    wanted_.push_back({{at::kByte, {static_cast<int64_t>(nbytes)}, nbytes}, source_});
    source_ += nbytes;
  }

  void want_at_random(std::mt19937& random) {
    for (size_t count = random() % 80; count > 0; --count) {
      want(random() % (random() % 5 == 0 ? 100'000 : 700), random() % 3 == 0 ? random() % 200 : 0);
    }
    std::shuffle(wanted_.begin(), wanted_.end(), random);
  }

  void load(size_t threads = 4) {
    contents_ = io::pattern(source_);
    const auto lane = DeviceLane::open(GetParam());
    const MemoryBytes source(io::readable(contents_));
    results_ = load_through(*lane, source, wanted_, {threads, kRing, kShared});
  }

  void check() const {
    ASSERT_EQ(results_.size(), wanted_.size());
    for (size_t i = 0; i < wanted_.size(); ++i) {
      const at::Tensor& tensor = results_[i];
      const size_t nbytes = wanted_[i].type.nbytes;
      ASSERT_EQ(tensor.device(), GetParam());
      ASSERT_EQ(tensor.storage().nbytes(), nbytes);
      ASSERT_FALSE(tensor.storage().unsafeGetStorageImpl()->resizable());
      ASSERT_TRUE(bytes_on(tensor) == contents_.substr(wanted_[i].source, nbytes)) << i << ": " << nbytes;
    }
  }

  uint64_t source_ = 0;
  std::vector<Wanted> wanted_;
  std::vector<at::Tensor> results_;
  std::string contents_;
};

INSTANTIATE_TEST_SUITE_P(On, DeviceLoad, testing::Values(c10::Device(c10::kCPU), fake::kDevice),
                         [](const auto& info) { return info.param.is_cpu() ? "Cpu" : "Fake"; });

TEST_P(DeviceLoad, BringsEveryByteWhateverTheSizes) {
  std::mt19937 random(3);
  for (size_t round = 0; round < 40; ++round) {
    wanted_.clear();
    source_ = 0;
    want_at_random(random);
    load(1 + round % 16);
    ASSERT_NO_FATAL_FAILURE(check()) << round;
  }
}

TEST_P(DeviceLoad, MovesSmallTensorsTogether) {
  for (int i = 0; i < 2000; ++i) {
    want(100);
  }
  load();
  check();
  EXPECT_LE(fake::counts().copies, 2000 + 2000 / (8192 / 128) + 1);  // check() itself makes 2000
}

TEST_P(DeviceLoad, HostMemoryIsBoundedByTheRing) {
  want(3 << 20);
  load(16);
  check();
  EXPECT_LE(fake::counts().host_peak, kRing);
}

TEST_P(DeviceLoad, GivesSharedMemoryBackWithTheLastTensor) {
  for (int i = 0; i < 8; ++i) {
    want(100);
  }
  load();
  if (GetParam().is_cpu()) {
    return;
  }
  EXPECT_EQ(fake::counts().device_bytes, 7 * 128 + 100);
  const at::Tensor last = results_.back();
  results_.clear();
  EXPECT_EQ(fake::counts().device_bytes, 7 * 128 + 100);
  EXPECT_EQ(bytes_on(last), contents_.substr(700));
}

TEST_P(DeviceLoad, SaysWhatReadingThrows) {
  want(1 << 20);
  for (size_t size : {size_t{0}, size_t{5000}, size_t{900'000}}) {
    const io::TestDirectory directory;
    const io::SteadyFile file{io::File(io::write_file(directory / "f", io::pattern(1 << 20)))};
    ASSERT_EQ(::truncate(file.path().c_str(), static_cast<off_t>(size)), 0);
    const FileBytes source(file);
    const auto lane = DeviceLane::open(GetParam());
    EXPECT_THROW(load_through(*lane, source, wanted_, {4, kRing, kShared}), OsError) << size;
  }
  load();
  check();
}

/// The n-th read fails.
class FailingBytes : public ByteSource {
 public:
  FailingBytes(const ByteSource& bytes, int n) : bytes_(bytes), left_(n) {}
  void read(std::span<const io::ReadRange> ranges) const override {
    if (--left_ == 0) {
      throw OsError(EIO, "[Errno 5] Input/output error: 'f'");
    }
    bytes_.read(ranges);
  }

 private:
  const ByteSource& bytes_;
  mutable std::atomic<int> left_;
};

TEST_P(DeviceLoad, AnErrorMidwayLeavesNothingInUse) {
  std::mt19937 random(8);
  want_at_random(random);
  want(100'000);
  load();
  results_.clear();
  fake::reset();
  const MemoryBytes bytes(io::readable(contents_));
  for (int n = 1; n < 12; ++n) {
    const auto lane = DeviceLane::open(GetParam());
    expect_error<OsError>("Input/output error",
                          [&] { load_through(*lane, FailingBytes(bytes, n), wanted_, {4, kRing, kShared}); });
    fake::reset();
    EXPECT_EQ(fake::counts().device_bytes, 0);
    EXPECT_EQ(fake::counts().host_bytes, 0);
  }
  load();
  check();
}

TEST_P(DeviceLoad, ReadsFiles) {
  const io::TestDirectory directory;
  std::mt19937 random(5);
  want_at_random(random);
  contents_ = io::pattern(source_);
  const io::SteadyFile file{io::File(io::write_file(directory / "f", contents_))};
  const auto lane = DeviceLane::open(GetParam());
  const FileBytes source(file);
  results_ = load_through(*lane, source, wanted_, {3, kRing, kShared});
  check();
}

class FakeDevice : public DeviceLoad {};
INSTANTIATE_TEST_SUITE_P(On, FakeDevice, testing::Values(fake::kDevice),
                         [](const auto&) { return std::string("Fake"); });

TEST_P(FakeDevice, WaitsForWhatItsMemoryIsStillUsedFor) {
  for (const size_t size : {100UL, 20'000UL}) {
    want(size);
  }
  for (const size_t size : {100UL, 20'000UL}) {
    // Freed at once, with work of the current stream on it still to come.
    at::empty({static_cast<int64_t>(size)}, at::TensorOptions().device(fake::kDevice).dtype(at::kByte));
  }
  load();
  check();
}

TEST_P(FakeDevice, IsReadyForTheStreamThatIsCurrent) {
  want(100'000);
  const c10::StreamGuard guard(c10::Stream(c10::Stream::UNSAFE, fake::kDevice, 7));
  load();
  check();
}

TEST_P(FakeDevice, SurvivesCopiesAndAllocationsThatFail) {
  want(100'000);
  want(100);
  want(200);
  for (size_t n = 1; n < 20; ++n) {
    fake::fail_copy(n);
    try {
      load();
    } catch (const c10::Error& error) {
      EXPECT_STREQ(error.what_without_backtrace(), "fake: the copy failed");
    }
    fake::fail_copy(0);
  }
  for (size_t n = 2; n < 4; ++n) {  // the first is the lane's
    fake::fail_allocation(n);
    EXPECT_THROW(load(), c10::Error);
  }
  load();
  check();
}

TEST_P(FakeDevice, LoadsThroughThePublicFunctions) {
  const io::TestDirectory directory;
  TensorDict tensors;
  tensors.insert("a", at::arange(5000, at::kFloat));
  tensors.insert("b", at::arange(3, at::kLong));
  tensors.insert("e", at::empty({0, 2}));
  tensors.insert("h", at::arange(7, at::kHalf));
  const std::string path = directory / "m";
  save_file(tensors, path);
  const at::Tensor bytes = save(tensors);
  for (const TensorDict& loaded :
       {load_file(path, fake::kDevice), torch_safetensors::load(bytes, fake::kDevice)}) {
    for (const auto& item : tensors) {
      const at::Tensor tensor = loaded.at(item.key());
      EXPECT_EQ(tensor.device(), fake::kDevice);
      EXPECT_TRUE(at::equal(tensor.to(at::kCPU), item.value())) << item.key();
    }
    EXPECT_TRUE(at::equal(save(loaded), bytes));
  }
  const at::Tensor out = at::empty({5000}, at::TensorOptions().device(fake::kDevice));
  const auto version = out._version();
  torch_safetensors::load_into(path, "a", out);
  EXPECT_EQ(out._version(), version + 1);
  EXPECT_TRUE(at::equal(out.to(at::kCPU), tensors.at("a")));
}

TEST_P(FakeDevice, FillsTensorsInPlaceInTheOrderOfTheStream) {
  const io::TestDirectory directory;
  TensorDict tensors;
  for (int i = 0; i < 50; ++i) {
    tensors.insert("t" + std::to_string(i), at::arange(i * 37, at::kInt));
  }
  const std::string path = directory / "m";
  save_file(tensors, path);
  const Checkpoint file(path, "auto");
  std::vector<std::string> names;
  std::vector<at::Tensor> outs;
  for (const auto& item : tensors) {
    names.push_back(item.key());
    outs.push_back(
        at::empty(item.value().sizes(), at::TensorOptions().device(fake::kDevice).dtype(at::kInt)));
    void* const memory = outs.back().mutable_data_ptr();
    fake::enqueue(
        [memory, size = outs.back().nbytes()] { std::fill_n(static_cast<char*>(memory), size, 1); });
  }
  load_into(file, names, outs);
  for (size_t i = 0; i < outs.size(); ++i) {
    ASSERT_TRUE(at::equal(outs[i].to(at::kCPU), tensors.at(names[i]))) << names[i];
  }
}

}  // namespace
}  // namespace torch_safetensors::tensors
