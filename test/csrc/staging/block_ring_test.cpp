#include "staging/block_ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include "io/child.h"
#include "staging/process_ring.h"

namespace torch_safetensors::staging {
namespace {

constexpr size_t kBlock = 4096;

/// Passed when the test says so.
class ManualFence : public Fence {
 public:
  bool is_done() override { return done; }
  void wait() override {
    ++waits;
    if (fails) {
      throw std::runtime_error("the device is gone");
    }
    done.wait(false);
  }

  std::atomic<bool> done{false};
  std::atomic<int> waits{0};
  bool fails = false;
};

HostMemory allocate(size_t size) {
  const auto owner = std::make_shared<std::vector<std::byte>>(size);
  return {owner->data(), owner};
}

std::shared_ptr<BlockRing> ring_of(size_t blocks, BlockRing::Allocate allocator = allocate,
                                   BlockRing::Free free = BlockRing::Free::kAfterFence) {
  return BlockRing::make(blocks * kBlock, std::move(allocator), free);
}

TEST(BlockRing, CutsItsCapacityIntoBlocks) {
  EXPECT_EQ(BlockRing::make(size_t{256} << 20, allocate, {})->block_size(), size_t{16} << 20);
  EXPECT_EQ(BlockRing::make(size_t{64} << 20, allocate, {})->block_size(), size_t{8} << 20);
  EXPECT_EQ(BlockRing::make(100'000, allocate, {})->block_size(), 2 * kBlock);
  EXPECT_EQ(BlockRing::make(1, allocate, {})->block_size(), kBlock);
}

TEST(BlockRing, AllocatesOnDemandAndNoMoreThanItsCapacity) {
  const auto ring = ring_of(3);
  EXPECT_EQ(ring->allocated(), 0);
  {
    const auto first = ring->acquire();
  }
  {
    const auto again = ring->acquire();
  }
  EXPECT_EQ(ring->allocated(), kBlock);
  std::vector<BlockRing::Block> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(ring->acquire());
    EXPECT_EQ(held.back().bytes().size(), kBlock);
  }
  EXPECT_EQ(ring->allocated(), 3 * kBlock);
  EXPECT_FALSE(ring->try_acquire());
  held.pop_back();
  EXPECT_TRUE(ring->try_acquire());
  EXPECT_EQ(ring->allocated(), 3 * kBlock);
}

TEST(BlockRing, HasTwoBlocksAtLeast) {
  const auto ring = BlockRing::make(1, allocate, {});
  const auto first = ring->acquire(), second = ring->acquire();
  EXPECT_FALSE(ring->try_acquire());
}

TEST(BlockRing, GrowsRatherThanWaitsForACopy) {
  const auto ring = ring_of(2);
  const auto fence = std::make_shared<ManualFence>();
  ring->acquire().release_after(fence);
  {
    const auto other = ring->acquire();
  }
  EXPECT_EQ(ring->allocated(), 2 * kBlock);
  EXPECT_EQ(fence->waits, 0);
  fence->done = true;
}

TEST(BlockRing, WaitsForTheOldestCopyFirst) {
  const auto ring = ring_of(2);
  const auto older = std::make_shared<ManualFence>(), newer = std::make_shared<ManualFence>();
  auto first = ring->acquire(), second = ring->acquire();
  const std::byte* const memory = first.bytes().data();
  first.release_after(older);
  second.release_after(newer);
  newer->done = true;
  std::thread device([&] {
    older->done = true;
    older->done.notify_all();
  });
  EXPECT_EQ(ring->acquire().bytes().data(), memory);
  EXPECT_EQ(older->waits, 1);
  EXPECT_EQ(newer->waits, 0);
  device.join();
}

TEST(BlockRing, WaitsForAnotherHolder) {
  const auto ring = ring_of(2);
  auto first = std::make_unique<BlockRing::Block>(ring->acquire());
  const auto second = ring->acquire();
  std::thread holder([&] { first.reset(); });
  const auto third = ring->acquire();
  EXPECT_EQ(ring->allocated(), 2 * kBlock);
  holder.join();
}

TEST(BlockRing, DropsABlockWhoseCopyFailed) {
  const auto ring = ring_of(2);
  const auto fence = std::make_shared<ManualFence>();
  fence->fails = true;
  fence->done = true;
  ring->acquire().release_after(fence);
  EXPECT_THROW(ring->acquire(), std::runtime_error);
  EXPECT_EQ(ring->allocated(), 0);
  const auto fresh = ring->acquire();
}

TEST(BlockRing, WorksWithWhatMemoryThereIs) {
  int allowed = 2;
  const auto ring = ring_of(8, [&](size_t size) {
    if (allowed-- <= 0) {
      throw std::bad_alloc();
    }
    return allocate(size);
  });
  auto first = std::make_unique<BlockRing::Block>(ring->acquire());
  const auto second = ring->acquire();
  EXPECT_FALSE(ring->try_acquire());
  std::thread holder([&] { first.reset(); });
  const auto third = ring->acquire();
  holder.join();
  EXPECT_EQ(ring->allocated(), 2 * kBlock);
}

TEST(BlockRing, SaysThatThereIsNoMemoryAtAll) {
  bool fails = true;
  const auto ring = ring_of(8, [&](size_t size) { return fails ? throw std::bad_alloc() : allocate(size); });
  EXPECT_THROW(ring->acquire(), std::bad_alloc);
  EXPECT_EQ(ring->allocated(), 0);
  fails = false;
  const auto block = ring->acquire();
}

TEST(BlockRing, FreesMemoryAfterItsFences) {
  for (const auto free : {BlockRing::Free::kAtOnce, BlockRing::Free::kAfterFence}) {
    const auto fence = std::make_shared<ManualFence>();
    std::thread device([&] {
      fence->done = true;
      fence->done.notify_all();
    });
    ring_of(2, allocate, free)->acquire().release_after(fence);
    EXPECT_EQ(fence->waits, free == BlockRing::Free::kAfterFence ? 1 : 0);
    device.join();
  }
}

TEST(BlockRing, ServesMoreThreadsThanBlocks) {
  const auto ring = ring_of(3);
  std::atomic<int> held{0}, most{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 200; ++turn) {
        auto block = ring->acquire();
        const int now = ++held;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        block.bytes()[turn] = std::byte{1};
        --held;
        auto fence = std::make_shared<ManualFence>();
        fence->done = true;
        block.release_after(turn % 2 == 0 ? std::move(fence) : nullptr);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_LE(most, 3);
  EXPECT_LE(ring->allocated(), 3 * kBlock);
}

TEST(ProcessRing, IsSharedWhileInUse) {
  const auto get = [](size_t capacity) { return process_ring(-1, capacity, allocate, {}); };
  auto ring = get(1 << 20);
  EXPECT_EQ(get(1 << 20), ring);
  EXPECT_NE(process_ring(-2, 1 << 20, allocate, {}), ring);
  const auto other = get(1 << 21);
  EXPECT_NE(other, ring);
  const std::weak_ptr<BlockRing> gone = ring;
  ring.reset();
  EXPECT_TRUE(gone.expired());
}

TEST(ProcessRing, IsNewInAForkedChild) {
  const auto ring = process_ring(-1, 1 << 20, allocate, {});
  std::vector<BlockRing::Block> held;
  while (auto block = ring->try_acquire()) {
    held.push_back(std::move(*block));
  }
  EXPECT_EQ(io::run_in_child([&] {
              const auto mine = process_ring(-1, 1 << 20, allocate, {});
              if (mine == ring || mine->allocated() != 0) {
                throw std::runtime_error("the parent's ring");
              }
              const auto block = mine->acquire();
            }),
            0);
}

}  // namespace
}  // namespace torch_safetensors::staging
