#include "tensors/device_load.h"

#include <algorithm>
#include <numeric>

#include "io/progress.h"
#include "io/run_parallel.h"
#include "tensors/host_blocks.h"
#include "tensors/read_chunk.h"

namespace torch_safetensors::tensors {
namespace {

/// Indices in the order of the sources, in which disks read best.
template <typename Position>
std::vector<size_t> in_order(size_t count, Position position) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  const auto before = [&](size_t a, size_t b) { return position(a) < position(b); };
  if (!std::is_sorted(order.begin(), order.end(), before)) {
    std::stable_sort(order.begin(), order.end(), before);
  }
  return order;
}

void move_chunk(const DeviceLane& lane, const ByteSource& source, const staging::ChunkPlan& plan,
                const staging::Chunk& chunk, std::span<const staging::Item> items, const DeviceMemory& memory,
                staging::BlockRing& ring) {
  const DeviceLane::Scope scope(lane);
  staging::BlockRing::Block block = ring.acquire();
  read_chunk(source, plan, chunk, items, block.bytes());
  copy_from_block(lane, block, [&] { copy_chunk(lane, plan, chunk, host_tensor(block), memory); });
}

void move_chunks(const DeviceLane& lane, const ByteSource& source, const staging::ChunkPlan& plan,
                 std::span<const staging::Item> items, const DeviceMemory& memory, staging::BlockRing& ring,
                 size_t threads) {
  io::Progress* const progress = io::Progress::current();
  lane.follow_current();
  try {
    io::run_parallel(plan.chunks.size(), threads, [&](size_t i) {
      move_chunk(lane, source, plan, plan.chunks[i], items, memory, ring);
      if (progress != nullptr) {
        // Out of the lane's Scope, which is not for what a report may do.
        uint64_t moved = 0;
        for (const staging::Part& part : plan.parts_of(plan.chunks[i])) {
          moved += part.nbytes;
        }
        progress->advance(moved);
      }
    });
  } catch (...) {
    // The destinations are about to be freed, or go back to their owners, with copies on the way.
    try {
      lane.precede_current();
    } catch (const std::exception&) {
      // The device has stopped; what went wrong first says more.
    }
    throw;
  }
  lane.precede_current();
}

}  // namespace

std::vector<at::Tensor> load_through(const DeviceLane& lane, const ByteSource& source,
                                     std::span<const Wanted> wanted, const TransferSettings& settings) {
  const std::vector<size_t> order = in_order(wanted.size(), [&](size_t i) { return wanted[i].source; });
  std::vector<staging::Item> items;
  std::vector<TensorType> types;
  items.reserve(order.size());
  types.reserve(order.size());
  for (const size_t i : order) {
    items.push_back({wanted[i].source, wanted[i].type.nbytes});
    types.push_back(wanted[i].type);
  }
  const auto ring = host_ring(lane.device(), settings.ring_capacity);
  const auto plan = staging::plan_chunks(items, {ring->block_size(), settings.shared_below});
  DeviceMemory memory(items.size(), plan.units.size());
  for (size_t unit = 0; unit < plan.units.size(); ++unit) {
    allocate_unit(plan, unit, types, lane.device(), memory);
  }
  move_chunks(lane, source, plan, items, memory, *ring, settings.threads);
  std::vector<at::Tensor> tensors(wanted.size());
  for (size_t i = 0; i < order.size(); ++i) {
    at::Tensor& tensor = memory.tensors[i];
    tensors[order[i]] = tensor.defined() ? std::move(tensor) : empty_tensor(types[i], lane.device());
  }
  return tensors;
}

std::optional<std::vector<at::Tensor>> load_to_device(const ByteSource& source,
                                                      std::span<const Wanted> wanted, c10::Device device,
                                                      const TransferOptions& options) {
  const TransferSettings settings = transfer_settings(device, options);
  const std::shared_ptr<DeviceLane> lane = DeviceLane::open(device);
  if (!lane) {
    return std::nullopt;
  }
  return load_through(*lane, source, wanted, settings);
}

void fill_through(const DeviceLane& lane, const ByteSource& source, std::span<const ToFill> outs,
                  const TransferSettings& settings) {
  const std::vector<size_t> order = in_order(outs.size(), [&](size_t i) { return outs[i].source; });
  std::vector<staging::Item> items;
  std::vector<at::Tensor> tensors;
  for (const size_t i : order) {
    items.push_back({outs[i].source, outs[i].out.nbytes()});
    tensors.push_back(outs[i].out);
  }
  const auto ring = host_ring(lane.device(), settings.ring_capacity);
  // They travel together, though each to memory of its own: only reading and waiting are shared.
  const auto plan = staging::plan_chunks(items, {ring->block_size(), ring->block_size()});
  DeviceMemory memory(0, plan.units.size());
  memory.tensors = std::move(tensors);
  move_chunks(lane, source, plan, items, memory, *ring, settings.threads);
}

}  // namespace torch_safetensors::tensors
