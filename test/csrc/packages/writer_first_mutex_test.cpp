#include "packages/writer_first_mutex.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <shared_mutex>
#include <thread>
#include <vector>

namespace torch_safetensors::packages {
namespace {

/// Long enough for a thread that could go on to do so.
constexpr std::chrono::milliseconds kMoment{50};

TEST(WriterFirstMutexTest, ReadersShareIt) {
  WriterFirstMutex mutex;
  const std::shared_lock first(mutex);
  std::thread([&] { const std::shared_lock second(mutex); }).join();
}

TEST(WriterFirstMutexTest, NoReaderPassesAWriterThatWaits) {
  WriterFirstMutex mutex;
  std::atomic<int> order = 0, writer = 0, reader = 0;
  std::shared_lock inside(mutex);
  std::thread writes([&] {
    const std::lock_guard lock(mutex);
    std::this_thread::sleep_for(kMoment);
    writer = ++order;
  });
  std::this_thread::sleep_for(kMoment);
  std::thread reads([&] {
    const std::shared_lock lock(mutex);
    reader = ++order;
  });
  std::this_thread::sleep_for(kMoment);
  EXPECT_EQ(order, 0);
  inside.unlock();
  writes.join();
  reads.join();
  EXPECT_EQ(writer, 1);
  EXPECT_EQ(reader, 2);
}

TEST(WriterFirstMutexTest, WritersAreAlone) {
  WriterFirstMutex mutex;
  int value = 0;  // the thread sanitizer would see two at it
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) {
        {
          const std::lock_guard lock(mutex);
          ++value;
        }
        const std::shared_lock lock(mutex);
        EXPECT_GT(value, 0);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(value, 4000);
}

}  // namespace
}  // namespace torch_safetensors::packages
