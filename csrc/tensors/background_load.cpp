#include "tensors/background_load.h"

#include <ATen/Functions.h>
#include <unistd.h>

#include "tensors/host_blocks.h"
#include "tensors/read_chunk.h"

namespace torch_safetensors::tensors {
namespace {

/// To the CPU nothing is packed and nothing copied; the size of its chunks only says how soon `stop` is
/// obeyed and how many threads share a large tensor.
constexpr size_t kCpuChunk = size_t{8} << 20;

}  // namespace

BackgroundLoad::BackgroundLoad(CheckpointBytes source, std::vector<NamedRows> rows, c10::Device device,
                               const TransferSettings& settings, size_t buffer_size)
    : source_(source), rows_(std::move(rows)), device_(device), process_(::getpid()) {
  for (size_t i = 0; i < rows_.size(); ++i) {
    by_name_.emplace(rows_[i].name, i);
    types_.push_back(rows_[i].wanted.type);
    items_.push_back({rows_[i].wanted.source, rows_[i].wanted.type.nbytes});
  }
  staging::PlanLimits limits{kCpuChunk, settings.shared_below};
  lane_ = device.is_cpu() ? nullptr : DeviceLane::open(device);
  if (lane_) {
    device_ = lane_->device();
    ring_ = host_ring(device_, settings.ring_capacity);
    limits.block_size = ring_->block_size();
  }
  plan_ = staging::plan_chunks(items_, limits);
  memory_ = DeviceMemory(items_.size(), plan_.units.size());
  fences_.resize(plan_.units.size());
  is_made_.resize(plan_.units.size());
  unit_of_.resize(items_.size());
  for (size_t unit = 0; unit < plan_.units.size(); ++unit) {
    for (const staging::Part& part : plan_.parts_of(plan_.units[unit])) {
      unit_of_[part.item] = unit;
    }
    left_.push_back(plan_.chunks[plan_.units[unit].first_chunk].part_count);
  }
  queue_ = std::make_unique<staging::PrefetchQueue>(plan_, items_, buffer_size);
  start(std::min(settings.threads, plan_.chunks.size()));
}

void BackgroundLoad::start(size_t threads) {
  while (threads_.size() < threads) {
    ++working_;
    try {
      threads_.emplace_back([this] { work(); });
    } catch (const std::exception&) {
      --working_;
      if (threads_.empty()) {
        throw;
      }
      break;  // out of threads (a limit of the container): those that did start do the work
    }
  }
  leave();
}

std::optional<size_t> BackgroundLoad::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? std::nullopt : std::optional(found->second);
}

bool BackgroundLoad::is_of_this_process() const { return process_ == ::getpid(); }

void BackgroundLoad::work() noexcept {
  try {
    while (const std::optional<size_t> chunk = queue_->next_chunk()) {
      load_chunk(*chunk);
    }
  } catch (...) {
    queue_->fail(std::current_exception());
  }
  leave();
}

/// What is read needs no blocks any more, however long it waits to be taken.
void BackgroundLoad::leave() noexcept {
  if (--working_ == 0) {
    ring_.reset();
  }
}

void BackgroundLoad::load_chunk(size_t index) {
  const staging::Chunk& chunk = plan_.chunks[index];
  if (lane_) {
    read_through_ring(chunk);
  } else {
    make_unit(chunk.unit);
    read_straight(chunk);
  }
  if (queue_->finish_chunk(index)) {
    // Behind the copies of all chunks, whoever enqueued them.
    fences_[chunk.unit] = lane_ ? lane_->mark() : nullptr;
    queue_->publish(chunk.unit);
  }
}

/// By whoever comes first, since the readers of a large tensor's chunks do not know of each other.
void BackgroundLoad::make_unit(size_t unit) {
  const std::lock_guard lock(making_);
  if (is_made_[unit]) {
    return;
  }
  if (lane_) {
    allocate_unit(plan_, unit, types_, device_, memory_);
  } else {
    for (const staging::Part& part : plan_.parts_of(plan_.units[unit])) {
      if (part.item_offset == 0) {
        memory_.tensors[part.item] = empty_tensor(types_[part.item], at::kCPU);
      }
    }
  }
  is_made_[unit] = true;
}

void BackgroundLoad::read_straight(const staging::Chunk& chunk) const {
  std::vector<io::ReadRange> ranges;
  for (const staging::Part& part : plan_.parts_of(chunk)) {
    ranges.push_back({items_[part.item].source + part.item_offset,
                      writable_bytes(memory_.tensors[part.item]).subspan(part.item_offset, part.nbytes)});
  }
  source_.read(ranges);
}

void BackgroundLoad::read_through_ring(const staging::Chunk& chunk) {
  const DeviceLane::Scope scope(*lane_);
  make_unit(chunk.unit);
  staging::BlockRing::Block block = ring_->acquire();
  read_chunk(source_, plan_, chunk, items_, block.bytes());
  copy_from_block(*lane_, block, [&] { copy_chunk(*lane_, plan_, chunk, host_tensor(block), memory_); });
}

at::Tensor BackgroundLoad::hand_out(size_t item) {
  if (items_[item].nbytes == 0) {
    return empty_tensor(types_[item], device_);
  }
  const std::lock_guard lock(making_);
  at::Tensor tensor = std::move(memory_.tensors[item]);
  if (!tensor.defined() || !lane_) {
    return tensor.defined() ? tensor.to(device_) : tensor;
  }
  const size_t unit = unit_of_[item];
  at::Tensor& shared = memory_.shared[unit];
  lane_->hand_over(fences_[unit].get(), (shared.defined() ? shared : tensor).storage().data_ptr());
  if (--left_[unit] == 0) {
    shared.reset();  // from here on the tensors alone keep it
  }
  return tensor;
}

void BackgroundLoad::stop() {
  queue_->stop();
  const std::lock_guard lock(stopping_);
  for (std::thread& thread : threads_) {
    thread.join();
  }
  threads_.clear();
  const std::lock_guard no_more(making_);
  memory_ = DeviceMemory(items_.size(), plan_.units.size());
}

}  // namespace torch_safetensors::tensors
