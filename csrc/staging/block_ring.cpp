#include "staging/block_ring.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace torch_safetensors::staging {
namespace {

/// Long enough that starting a copy costs nothing against the copy.
constexpr size_t kMaxBlock = size_t{16} << 20;

/// A small ring still has blocks being read while others are being copied.
constexpr size_t kFewestBlocks = 8;

constexpr size_t kMinBlock = 4096;

/// A power of two, to which allocators of pinned memory round up anyway.
size_t block_size_for(size_t capacity) {
  return std::clamp(std::bit_floor(capacity / kFewestBlocks), kMinBlock, kMaxBlock);
}

}  // namespace

std::shared_ptr<BlockRing> BlockRing::make(size_t capacity, Allocate allocate, Free free) {
  return std::shared_ptr<BlockRing>(new BlockRing(capacity, std::move(allocate), free));
}

BlockRing::BlockRing(size_t capacity, Allocate allocate, Free free)
    : capacity_(capacity),
      block_size_(block_size_for(capacity)),
      allocate_(std::move(allocate)),
      free_(free),
      most_(std::max<size_t>(2, capacity / block_size_)) {}

BlockRing::~BlockRing() {
  if (free_ == Free::kAtOnce) {
    return;
  }
  for (const Idle& idle : idle_) {
    try {
      if (idle.fence) {
        idle.fence->wait();
      }
    } catch (const std::exception&) {
      // A device in such a state reads nothing any more, and says so to whoever uses it next.
    }
  }
}

size_t BlockRing::allocated() const {
  const std::lock_guard lock(mutex_);
  return allocated_ * block_size_;
}

BlockRing::Block BlockRing::acquire() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (std::optional<Block> block = take(lock)) {
      return std::move(*block);
    }
    if (!lock.owns_lock()) {
      lock.lock();  // there was no memory for one more: now wait with the others
      continue;
    }
    returned_.wait(lock);
  }
}

std::optional<BlockRing::Block> BlockRing::try_acquire() {
  std::unique_lock lock(mutex_);
  return take(lock);
}

/// Gives `lock` up where it returns a block.
std::optional<BlockRing::Block> BlockRing::take(std::unique_lock<std::mutex>& lock) {
  const bool may_grow = allocated_ < most_;
  const bool has_done = !idle_.empty() && (!idle_.front().fence || idle_.front().fence->is_done());
  if (may_grow && !has_done) {
    return allocate_one(lock);
  }
  if (idle_.empty()) {
    return std::nullopt;
  }
  Idle idle = std::move(idle_.front());
  idle_.pop_front();
  lock.unlock();
  try {
    if (idle.fence) {
      idle.fence->wait();
    }
  } catch (...) {
    forget_one();
    throw;
  }
  return Block(shared_from_this(), std::move(idle.memory));
}

std::optional<BlockRing::Block> BlockRing::allocate_one(std::unique_lock<std::mutex>& lock) {
  ++allocated_;
  lock.unlock();  // pinning memory takes milliseconds
  try {
    return Block(shared_from_this(), allocate_(block_size_));
  } catch (...) {
    const std::lock_guard again(mutex_);
    most_ = --allocated_;
    if (allocated_ == 0) {
      most_ = 1;  // somebody else may have more luck
      returned_.notify_one();
      throw;
    }
    return std::nullopt;
  }
}

void BlockRing::give_back(HostMemory memory, std::shared_ptr<Fence> fence) {
  const std::lock_guard lock(mutex_);
  idle_.push_back({std::move(memory), std::move(fence)});
  // Under the lock: the ring may be gone as soon as another thread sees the block.
  returned_.notify_one();
}

void BlockRing::forget_one() {
  const std::lock_guard lock(mutex_);
  --allocated_;
  returned_.notify_one();
}

BlockRing::Block::~Block() {
  if (ring_) {
    release_after(nullptr);
  }
}

void BlockRing::Block::release_after(std::shared_ptr<Fence> fence) {
  const std::shared_ptr<BlockRing> ring = std::move(ring_);
  ring->give_back(std::move(memory_), std::move(fence));
}

}  // namespace torch_safetensors::staging
