#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "staging/fence.h"

namespace torch_safetensors::staging {

/// Host memory and who owns it.
struct HostMemory {
  std::byte* data = nullptr;
  std::shared_ptr<void> owner;
};

/// Blocks of host memory on the way between disk and device, never more than a given amount. They are made
/// when first needed, come back with the fence of the copy that still uses them, and are handed out again
/// oldest first: its copy has had the most time. Safe to use from several threads.
///
/// Nobody deadlocks who follows one rule: hold no block while waiting for another (`try_acquire` does not
/// wait), nor while waiting for anything but one's own read, write or copy.
class BlockRing : public std::enable_shared_from_this<BlockRing> {
 public:
  using Allocate = std::function<HostMemory(size_t)>;

  /// When memory may go back to where it came from.
  enum class Free {
    kAtOnce,      ///< Its allocator itself waits for copies that are in flight.
    kAfterFence,  ///< When the fence is passed.
  };

  class Block;

  /// A ring of at most `capacity` bytes, and of two blocks at least. `allocate` throws where it cannot.
  static std::shared_ptr<BlockRing> make(size_t capacity, Allocate allocate, Free free);
  ~BlockRing();
  BlockRing(const BlockRing&) = delete;
  BlockRing& operator=(const BlockRing&) = delete;

  size_t capacity() const { return capacity_; }
  size_t block_size() const { return block_size_; }

  /// A block, as soon as there is one. Throws what the allocation of the very first block throws (without
  /// memory for more it works with fewer), and what a fence throws.
  Block acquire();

  /// The same, or nothing where it would have to wait for another holder of a block.
  std::optional<Block> try_acquire();

  /// Bytes of all blocks there are now.
  size_t allocated() const;

 private:
  struct Idle {
    HostMemory memory;
    std::shared_ptr<Fence> fence;
  };

  BlockRing(size_t capacity, Allocate allocate, Free free);
  std::optional<Block> take(std::unique_lock<std::mutex>& lock);
  std::optional<Block> allocate_one(std::unique_lock<std::mutex>& lock);
  void give_back(HostMemory memory, std::shared_ptr<Fence> fence);
  void forget_one();

  const size_t capacity_;
  const size_t block_size_;
  const Allocate allocate_;
  const Free free_;
  mutable std::mutex mutex_;
  std::condition_variable returned_;
  std::deque<Idle> idle_;
  size_t allocated_ = 0;  // in blocks
  size_t most_;           // blocks
};

/// A block that its holder alone uses. It keeps the ring alive and goes back to it in the end.
class BlockRing::Block {
 public:
  Block(Block&& other) noexcept = default;
  Block& operator=(Block&&) = delete;
  ~Block();

  std::span<std::byte> bytes() const { return {memory_.data, ring_->block_size()}; }
  const std::shared_ptr<void>& owner() const { return memory_.owner; }

  /// Gives it back; the next holder waits for the fence (null: there is nothing to wait for).
  void release_after(std::shared_ptr<Fence> fence);

 private:
  friend class BlockRing;
  Block(std::shared_ptr<BlockRing> ring, HostMemory memory)
      : ring_(std::move(ring)), memory_(std::move(memory)) {}

  std::shared_ptr<BlockRing> ring_;
  HostMemory memory_;
};

}  // namespace torch_safetensors::staging
