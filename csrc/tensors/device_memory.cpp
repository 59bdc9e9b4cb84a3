#include "tensors/device_memory.h"

#include <ATen/Functions.h>

namespace torch_safetensors::tensors {

void allocate_unit(const staging::ChunkPlan& plan, size_t unit, std::span<const TensorType> types,
                   c10::Device device, DeviceMemory& memory) {
  const auto parts = plan.parts_of(plan.units[unit]);
  if (plan.units[unit].chunk_count > 1 || parts.size() == 1) {
    const size_t item = parts.front().item;
    memory.tensors[item] = empty_tensor(types[item], device);
    return;
  }
  const auto nbytes = static_cast<int64_t>(plan.units[unit].nbytes);
  memory.shared[unit] = at::empty({nbytes}, at::TensorOptions().dtype(at::kByte).device(device));
  auto* const begin = static_cast<std::byte*>(memory.shared[unit].mutable_data_ptr());
  for (const staging::Part& part : parts) {
    memory.tensors[part.item] =
        tensor_over(begin + part.block_offset, types[part.item], memory.shared[unit].getIntrusivePtr(),
                    memory.shared[unit].device());
  }
}

void copy_chunk(const DeviceLane& lane, const staging::ChunkPlan& plan, const staging::Chunk& chunk,
                const at::Tensor& block, const DeviceMemory& memory) {
  if (const at::Tensor& shared = memory.shared[chunk.unit]; shared.defined()) {
    lane.copy(bytes_of(shared, 0, chunk.nbytes), bytes_of(block, 0, chunk.nbytes));
    return;
  }
  for (const staging::Part& part : plan.parts_of(chunk)) {
    lane.copy(bytes_of(memory.tensors[part.item], part.item_offset, part.nbytes),
              bytes_of(block, part.block_offset, part.nbytes));
  }
}

}  // namespace torch_safetensors::tensors
