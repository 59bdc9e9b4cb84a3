#pragma once

#include <cstddef>
#include <span>

#include "staging/chunk_plan.h"
#include "tensors/byte_source.h"
#include "tensors/device_lane.h"

namespace torch_safetensors::tensors {

/// Reads what a chunk carries to the places of its parts in a block.
void read_chunk(const ByteSource& source, const staging::ChunkPlan& plan, const staging::Chunk& chunk,
                std::span<const staging::Item> items, std::span<std::byte> block);

/// Runs `enqueue`, which has the lane copy out of a block or into it, and gives the block back to be used
/// after that. If it throws, some of its copies may be on the way: they are waited for.
template <typename Enqueue>
void copy_from_block(const DeviceLane& lane, staging::BlockRing::Block& block, Enqueue enqueue) {
  try {
    enqueue();
  } catch (...) {
    block.release_after(lane.mark_use(block));
    throw;
  }
  block.release_after(lane.mark_use(block));
}

}  // namespace torch_safetensors::tensors
