#include "staging/prefetch_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

namespace torch_safetensors::staging {
namespace {

using Answer = PrefetchQueue::Answer;
using std::chrono::milliseconds;

constexpr milliseconds kNow{0};
constexpr milliseconds kLong{60'000};

/// Items a (3 chunks), b and c (one unit), an empty one, d.
struct Load {
  explicit Load(size_t budget) : queue(plan, items, budget) {}

  void read(size_t chunk) {
    if (queue.finish_chunk(chunk)) {
      queue.publish(plan.chunks[chunk].unit);
    }
  }

  std::vector<Item> items{{0, 2500}, {2500, 10}, {2510, 20}, {2530, 0}, {2530, 1000}};
  ChunkPlan plan = plan_chunks(items, {1000, 100});
  PrefetchQueue queue;
};

TEST(PrefetchQueue, HandsOutChunksInOrderAndItemsAsTheyBecomeReady) {
  Load load(1 << 20);
  for (size_t chunk = 0; chunk < 5; ++chunk) {
    EXPECT_EQ(load.queue.next_chunk(), chunk);
  }
  EXPECT_FALSE(load.queue.next_chunk());
  EXPECT_EQ(load.queue.take_any(kNow).item, 3);  // the empty one
  EXPECT_EQ(load.queue.take_any(kNow).answer, Answer::kNotYet);
  load.read(3);
  load.read(0);
  load.read(1);
  EXPECT_EQ(load.queue.take(0, kNow), Answer::kNotYet);
  load.read(2);
  EXPECT_EQ(load.queue.take(2, kNow), Answer::kYours);
  EXPECT_EQ(load.queue.take(2, kNow), Answer::kTaken);
  EXPECT_EQ(load.queue.take_any(kNow).item, 1);
  EXPECT_EQ(load.queue.take_any(kNow).item, 0);
  load.read(4);
  EXPECT_EQ(load.queue.take(4, kNow), Answer::kYours);
  EXPECT_EQ(load.queue.take_any(kLong).answer, Answer::kTaken);
}

TEST(PrefetchQueue, PausesAtTheBudgetUntilSomethingIsTaken) {
  Load load(2600);
  for (size_t chunk = 0; chunk < 4; ++chunk) {
    load.read(*load.queue.next_chunk());
  }
  std::optional<size_t> chunk;
  std::thread reader([&] { chunk = load.queue.next_chunk(); });
  EXPECT_EQ(load.queue.take(0, kLong), Answer::kYours);
  reader.join();
  EXPECT_EQ(chunk, 4);
}

TEST(PrefetchQueue, AUnitLargerThanTheBudgetPassesAlone) {
  Load load(1);
  for (size_t chunk = 0; chunk < 3; ++chunk) {
    EXPECT_EQ(load.queue.next_chunk(), chunk);
    load.read(chunk);
  }
  EXPECT_EQ(load.queue.take(0, kNow), Answer::kYours);
  EXPECT_EQ(load.queue.next_chunk(), 3);
}

TEST(PrefetchQueue, WhatIsWaitedForGoesFirstAndPastTheBudget) {
  Load load(1);
  EXPECT_EQ(load.queue.next_chunk(), 0);
  EXPECT_EQ(load.queue.take(4, kNow), Answer::kNotYet);
  EXPECT_EQ(load.queue.take(1, kNow), Answer::kNotYet);
  EXPECT_EQ(load.queue.next_chunk(), 4);
  EXPECT_EQ(load.queue.next_chunk(), 3);
  EXPECT_EQ(load.queue.next_chunk(), 1);
}

TEST(PrefetchQueue, AnErrorReachesWhoeverWaits) {
  Load load(1 << 20);
  load.read(*load.queue.next_chunk());
  std::thread reader([&] {
    load.queue.fail(std::make_exception_ptr(std::runtime_error("first")));
    load.queue.fail(std::make_exception_ptr(std::logic_error("second")));
  });
  EXPECT_THROW(load.queue.take(4, kLong), std::runtime_error);
  reader.join();
  EXPECT_FALSE(load.queue.next_chunk());
  EXPECT_TRUE(load.queue.is_stopped());
  EXPECT_EQ(load.queue.take_any(kLong).item, 3);  // was ready before
  EXPECT_THROW(load.queue.take_any(kLong), std::runtime_error);
}

TEST(PrefetchQueue, StopWakesEverybody) {
  Load load(1);
  load.queue.next_chunk();
  std::thread taker([&] { EXPECT_EQ(load.queue.take(4, kLong), Answer::kStopped); });
  std::thread iterator([&] {
    while (load.queue.take_any(kLong).answer == Answer::kYours) {
    }
  });
  load.queue.stop();
  taker.join();
  iterator.join();
  EXPECT_FALSE(load.queue.next_chunk());
  EXPECT_EQ(load.queue.take(3, kNow), Answer::kStopped);
  EXPECT_EQ(load.queue.take_any(kNow).answer, Answer::kStopped);
}

TEST(PrefetchQueue, ManyReadersAndTakersShareTheWork) {
  std::vector<Item> items;
  for (size_t i = 0; i < 500; ++i) {
    items.push_back({i * 5000, i * 37 % 5000});
  }
  const ChunkPlan plan = plan_chunks(items, {1000, 300});
  PrefetchQueue queue(plan, items, 10'000);
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      while (const auto chunk = queue.next_chunk()) {
        if (queue.finish_chunk(*chunk)) {
          queue.publish(plan.chunks[*chunk].unit);
        }
      }
    });
    threads.emplace_back([&, i] {
      for (size_t item = 499 - i; item < 500; item -= 7) {
        taken += queue.take(item, kLong) == Answer::kYours;
      }
      while (queue.take_any(kLong).answer == Answer::kYours) {
        ++taken;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(taken, 500);
}

}  // namespace
}  // namespace torch_safetensors::staging
