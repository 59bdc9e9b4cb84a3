#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace torch_safetensors::staging {

/// Consecutive bytes of a source that shall go to a destination of their own.
struct Item {
  uint64_t source;
  size_t nbytes;
};

struct PlanLimits {
  /// No chunk is larger: it travels in one block.
  size_t block_size;
  /// Smaller items travel together.
  size_t shared_below;
};

/// Where parts begin in a block, and small items in memory that they share: what torch's own allocator
/// aligns CPU tensors to, and enough for every vector load of a GPU.
inline constexpr size_t kAlignment = 64;

/// A piece of an item within a block.
struct Part {
  size_t item;
  size_t item_offset;
  size_t block_offset;
  size_t nbytes;
};

/// What one block carries.
struct Chunk {
  size_t unit;
  size_t nbytes;
  size_t first_part;
  size_t part_count;
};

/// What becomes ready together: one large item in as many chunks as it needs, or several small ones, whole,
/// in one chunk.
struct Unit {
  size_t nbytes;
  size_t first_chunk;
  size_t chunk_count;
};

/// The way of items through blocks. Each byte of each item is in exactly one part; empty items are in none.
struct ChunkPlan {
  std::vector<Part> parts;
  std::vector<Chunk> chunks;
  /// In the order of their first byte in the source.
  std::vector<Unit> units;

  std::span<const Part> parts_of(const Chunk& chunk) const {
    return std::span(parts).subspan(chunk.first_part, chunk.part_count);
  }
  /// The parts of all chunks of a unit.
  std::span<const Part> parts_of(const Unit& unit) const;
};

/// `items` in the order of their sources.
ChunkPlan plan_chunks(std::span<const Item> items, const PlanLimits& limits);

}  // namespace torch_safetensors::staging
