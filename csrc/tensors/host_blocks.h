#pragma once

#include <ATen/core/Tensor.h>

#include "staging/block_ring.h"

namespace torch_safetensors::tensors {

/// The process's ring of host memory for copies to and from a device: pinned by torch's own host allocator
/// where the backend has one (which keeps freed blocks for the next load; torch gives them back), plain
/// memory elsewhere.
std::shared_ptr<staging::BlockRing> host_ring(c10::Device device, size_t capacity);

/// The memory of a block, 1-D uint8, for as long as it is held.
const at::Tensor& host_tensor(const staging::BlockRing::Block& block);

/// Tells the allocator of a pinned block that the stream uses it, so that it can be freed at any time.
void record_use(const staging::BlockRing::Block& block, const c10::Stream& stream);

}  // namespace torch_safetensors::tensors
