#include "tensors/device_save.h"

#include <ATen/Functions.h>
#include <c10/core/StreamGuard.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <thread>

#include "io/test_directory.h"
#include "tensors/fake_device.h"
#include "tensors/safetensors_file.h"

namespace torch_safetensors::tensors {
namespace {

constexpr size_t kRing = 64 << 10;  // 8 blocks of 8 KiB

at::Tensor on_fake(const std::string& bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  at::Tensor tensor = at::empty({size}, at::TensorOptions().device(fake::kDevice).dtype(at::kByte));
  void* const into = tensor.mutable_data_ptr();
  // Enqueued and not done: whoever reads must wait for it.
  fake::enqueue([into, bytes] { std::copy(bytes.begin(), bytes.end(), static_cast<char*>(into)); });
  return tensor;
}

class DeviceSave : public testing::Test {
 protected:
  DeviceSave() {
    ::setenv("TORCH_SAFETENSORS_RING_SIZE", std::to_string(kRing).c_str(), 1);
    fake::reset();
  }
  ~DeviceSave() override {
    ::unsetenv("TORCH_SAFETENSORS_RING_SIZE");
    tensors_.clear();
    fake::reset();
    EXPECT_EQ(fake::counts().host_bytes, 0);
    EXPECT_EQ(fake::counts().device_bytes, 0);
  }

  void add(size_t size) {
    expected_ += io::pattern(size + expected_.size() % 7).substr(expected_.size() % 7);
    tensors_.push_back(on_fake(expected_.substr(expected_.size() - size)));
  }

  std::string read() const {
    std::string result;
    DeviceReader reader([&](std::span<const std::byte> bytes) {
      result.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    });
    for (const at::Tensor& tensor : tensors_) {
      reader.add(tensor);
    }
    reader.flush();
    return result;
  }

  std::vector<at::Tensor> tensors_;
  std::string expected_;
};

TEST_F(DeviceSave, EmitsEveryByteInOrder) {
  std::mt19937 random(11);
  for (int i = 0; i < 300; ++i) {
    add(random() % (random() % 6 == 0 ? 60'000 : 400));
  }
  EXPECT_TRUE(read() == expected_);
  EXPECT_LE(fake::counts().host_peak, kRing);
}

TEST_F(DeviceSave, SmallTensorsTravelInOneBlock) {
  for (int i = 0; i < 100; ++i) {
    add(10);
  }
  size_t pieces = 0;
  DeviceReader reader([&](std::span<const std::byte>) { ++pieces; });
  for (const at::Tensor& tensor : tensors_) {
    reader.add(tensor);
  }
  reader.flush();
  EXPECT_EQ(pieces, 1);
}

/// What a TensorReader says of each tensor.
class Parts {
 public:
  TensorReader::Emit emit() {
    return [this](size_t index, std::span<const std::byte> bytes) {
      EXPECT_FALSE(bytes.empty());
      EXPECT_GE(index + 1, found_.size());
      found_.resize(index + 1);
      found_[index].append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
  }
  const std::vector<std::string>& found() const { return found_; }

 private:
  std::vector<std::string> found_;
};

TEST_F(DeviceSave, TellsTensorsApart) {
  std::mt19937 random(12);
  std::vector<std::string> expected;
  for (int i = 0; i < 300; ++i) {
    if (i % 7 == 3 || i % 7 == 5) {
      const at::Tensor here = at::arange(1, 100, at::kFloat);
      tensors_.push_back(i % 7 == 3 ? here._neg_view() : here);
      const at::Tensor dense = tensors_.back().resolve_neg();
      expected.emplace_back(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
    } else {
      expected.push_back(io::pattern(random() % (random() % 6 == 0 ? 60'000 : 400)));
      tensors_.push_back(on_fake(expected.back()));
    }
  }
  expected.push_back(io::pattern(1));  // not to end with nothing
  tensors_.push_back(on_fake(expected.back()));
  Parts parts;
  TensorReader reader(parts.emit());
  for (const at::Tensor& tensor : tensors_) {
    reader.add(tensor);
  }
  reader.flush();
  EXPECT_TRUE(parts.found() == expected);
}

/// As packed copies of parts are, which are made while others are on the way.
TEST_F(DeviceSave, KeepsAndWaitsForWhatIsMadeOnTheWay) {
  std::vector<std::string> expected;
  Parts parts;
  TensorReader reader(parts.emit());
  for (int i = 0; i < 300; ++i) {
    expected.push_back(std::string(1 + i * 37 % 5'000, static_cast<char>(i)));
    const at::Tensor made = on_fake(expected.back());
    reader.follow_current();
    reader.add(made);
  }
  reader.flush();
  EXPECT_TRUE(parts.found() == expected);
}

TEST_F(DeviceSave, OneStreamServesAllTensors) {
  for (int i = 0; i < 500; ++i) {
    add(10);
  }
  fake::reset();
  TensorReader reader([](size_t, std::span<const std::byte>) {});
  for (const at::Tensor& tensor : tensors_) {
    reader.add(tensor);
  }
  reader.flush();
  EXPECT_EQ(fake::counts().streams, 1);
  EXPECT_LE(fake::counts().events, 4);
}

TEST_F(DeviceSave, RefusesMemoryThatIsNotThere) {
  add(1000);
  tensors_[0].storage().set_nbytes(999);
  expect_error<c10::ValueError>("a tensor needs 1000 bytes of its storage, which has 999", [&] { read(); });
  tensors_[0].storage().set_nbytes(1000);
}

TEST_F(DeviceSave, WaitsForTheStreamThatIsCurrent) {
  const c10::StreamGuard guard(c10::Stream(c10::Stream::UNSAFE, fake::kDevice, 7));
  add(50'000);
  EXPECT_TRUE(read() == expected_);
}

TEST_F(DeviceSave, KeepsItsOrderAmongDevices) {
  add(20'000);
  tensors_.push_back(at::ones({3})._neg_view());
  const at::Tensor dense = tensors_.back().resolve_neg();
  expected_.append(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
  add(20'000);
  EXPECT_TRUE(read() == expected_);
}

TEST_F(DeviceSave, AFailureLeavesNoBlockInUse) {
  for (int i = 0; i < 10; ++i) {
    add(30'000);
  }
  for (size_t n = 1; n < 40; n += 3) {
    fake::fail_copy(n);
    EXPECT_THROW(read(), c10::Error);
    size_t pieces = 0;
    DeviceReader reader([&](std::span<const std::byte>) {
      if (++pieces == n) {
        throw std::runtime_error("the disk is full");
      }
    });
    try {
      for (const at::Tensor& tensor : tensors_) {
        reader.add(tensor);
      }
      reader.flush();
    } catch (const std::runtime_error&) {
    }
  }
  EXPECT_TRUE(read() == expected_);
}

TEST_F(DeviceSave, NeedsNoMoreThanTwoBlocks) {
  ::setenv("TORCH_SAFETENSORS_RING_SIZE", "1", 1);
  for (int i = 0; i < 10; ++i) {
    add(10'000);
  }
  EXPECT_TRUE(read() == expected_);
  EXPECT_LE(fake::counts().host_peak, 2 * 4096);
}

TEST_F(DeviceSave, SaversThatShareTheRingDoNotWaitForEachOther) {
  for (int i = 0; i < 10; ++i) {
    add(100'000);
  }
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] { good += read() == expected_; });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(good, 6);
}

}  // namespace
}  // namespace torch_safetensors::tensors
