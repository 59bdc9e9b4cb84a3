#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "io/test_directory.h"
#include "tensors/safe_open.h"
#include "torch_safetensors/writer.h"

// What is said to be safe to use from several threads is used so, for the thread sanitizer to see.

namespace torch_safetensors::tensors {
namespace {

constexpr int kThreads = 4;
constexpr int kRounds = 20;

/// Runs `act(thread, round)` on all threads at once.
template <typename Act>
void run_on_threads(Act act) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int round = 0; round < kRounds; ++round) {
        act(thread, round);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

class Threads : public ::testing::Test {
 protected:
  Threads() {
    tensors_.insert("large", at::arange(1 << 20));
    tensors_.insert("small", at::arange(10));
    tensors_.insert("square", at::arange(64 * 64).view({64, 64}));
    save_file(tensors_, path_, std::nullopt, /*fsync=*/false, /*checksum=*/true);
  }

  bool is_as_saved(const std::string& name, const at::Tensor& tensor) const {
    return at::equal(tensor, tensors_.at(name));
  }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "model.safetensors";
  TensorDict tensors_;
  std::atomic<int> wrong_ = 0;
};

TEST_F(Threads, ReadOneHandle) {
  for (const char* backend : {"mmap", "pread"}) {
    const SafeOpen file(path_, c10::kCPU, backend);
    run_on_threads([&](int thread, int round) {
      const std::string name = std::vector<std::string>{"large", "small", "square"}[(thread + round) % 3];
      wrong_ += !is_as_saved(name, file.get_tensor(name));
      wrong_ +=
          !is_as_saved(name, file.get_tensors_on({name}, c10::kCPU, std::nullopt, std::nullopt, true)[0]);
      wrong_ += !at::equal(file.get_slice("square", 1, thread, std::nullopt, 2),
                           tensors_.at("square").slice(1, thread, std::nullopt, 2));
      at::Tensor into = at::empty({10}, at::kLong);
      file.load_into({"small"}, {into}, std::nullopt);
      wrong_ += !is_as_saved("small", into);
      file.prefetch({"large"});
      wrong_ += file.keys().size() != 3;
    });
  }
  EXPECT_EQ(wrong_, 0);
}

TEST_F(Threads, LoadOneFileThatAnotherSaves) {
  for (const char* backend : {"mmap", "pread"}) {
    run_on_threads([&](int thread, int) {
      if (thread == 0) {
        save_file(tensors_, path_, std::nullopt, /*fsync=*/false, /*checksum=*/true);
        return;
      }
      const Loaded loaded = load_all(path_, c10::kCPU, backend, {}, /*verify=*/thread == 1);
      for (size_t i = 0; i < loaded.names.size(); ++i) {
        wrong_ += !is_as_saved(std::string(loaded.names[i]), loaded.tensors[i]);
      }
    });
  }
  EXPECT_EQ(wrong_, 0);
}

TEST_F(Threads, WriteOneFile) {
  for (const bool checksum : {false, true}) {
    const std::string path = directory_ / "written";
    TensorDict all;
    for (int i = 0; i < kThreads * kRounds; ++i) {
      all.insert(std::to_string(i), at::full({1000}, i));
    }
    Writer writer(path, all, std::nullopt, /*fsync=*/false, checksum);
    run_on_threads([&](int thread, int round) {
      const std::string name = std::to_string(thread * kRounds + round);
      writer.write(name, all.at(name));
    });
    writer.close();
    for (const auto& item : load_file(path, at::kCPU, "pread", /*verify=*/checksum)) {
      EXPECT_TRUE(at::equal(item.value(), all.at(item.key()))) << item.key();
    }
  }
}

}  // namespace
}  // namespace torch_safetensors::tensors
