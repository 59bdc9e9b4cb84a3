#pragma once

#include <span>
#include <vector>

#include "staging/chunk_plan.h"
#include "tensors/device_lane.h"
#include "tensors/storage.h"

namespace torch_safetensors::tensors {

/// Where the items of a plan go: tensors by item, and memory that the tensors of one unit share.
struct DeviceMemory {
  std::vector<at::Tensor> tensors;
  std::vector<at::Tensor> shared;  ///< By unit, 1-D uint8; undefined where each item has memory of its own.

  DeviceMemory(size_t items, size_t units) : tensors(items), shared(units) {}
};

/// Makes the tensors of a unit, of the types given by item, in the calling thread's current modes and stream.
/// A large one owns its storage. Small ones have storages of exactly their bytes over memory that they share,
/// which goes back when the last of them dies.
void allocate_unit(const staging::ChunkPlan& plan, size_t unit, std::span<const TensorType> types,
                   c10::Device device, DeviceMemory& memory);

/// Within a Scope of the lane: has a filled block copied to where its parts belong, memory that is shared in
/// one copy.
void copy_chunk(const DeviceLane& lane, const staging::ChunkPlan& plan, const staging::Chunk& chunk,
                const at::Tensor& block, const DeviceMemory& memory);

}  // namespace torch_safetensors::tensors
