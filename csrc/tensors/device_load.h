#pragma once

#include <optional>
#include <span>
#include <vector>

#include "tensors/byte_source.h"
#include "tensors/device_memory.h"
#include "tensors/transfer_options.h"

namespace torch_safetensors::tensors {

/// A tensor to be made and where its bytes begin in a source.
struct Wanted {
  TensorType type;
  uint64_t source;
};

/// Loads tensors to the lane's device: threads read blocks of the ring, from which the lane copies. They are
/// ready for what the calling thread's current stream is given after this. Throws what reading, allocating
/// and copying throw, after all threads have ended.
std::vector<at::Tensor> load_through(const DeviceLane& lane, const ByteSource& source,
                                     std::span<const Wanted> wanted, const TransferSettings& settings);

/// The same for a device. Nothing where its backend has no lanes.
std::optional<std::vector<at::Tensor>> load_to_device(const ByteSource& source,
                                                      std::span<const Wanted> wanted, c10::Device device,
                                                      const TransferOptions& options);

/// An existing tensor, contiguous and on the lane's device, to be filled with the bytes that begin there.
struct ToFill {
  at::Tensor out;
  uint64_t source;
};

/// Fills tensors in the same way.
void fill_through(const DeviceLane& lane, const ByteSource& source, std::span<const ToFill> outs,
                  const TransferSettings& settings);

}  // namespace torch_safetensors::tensors
