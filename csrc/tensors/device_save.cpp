#include "tensors/device_save.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "tensors/byte_range.h"
#include "tensors/host_blocks.h"
#include "tensors/storage.h"
#include "tensors/transfer_options.h"

namespace torch_safetensors::tensors {
namespace {

/// Enough for the device never to wait for the writer, and few enough to leave blocks to others.
constexpr size_t kMostOnTheWay = 4;

}  // namespace

DeviceReader::~DeviceReader() {
  // After an error: a block that the device still writes into goes back with its fence.
  if (current_) {
    try {
      current_->fence = lane_->mark_use(current_->block);
    } catch (const std::exception&) {
      // The device has stopped, and with it its copies.
    }
    on_the_way_.push_back(std::move(*current_));
  }
  for (Filling& filling : on_the_way_) {
    filling.block.release_after(std::move(filling.fence));
  }
}

void DeviceReader::add(const at::Tensor& tensor) {
  if (tensor.numel() == 0) {
    return;
  }
  check_memory(tensor, "a tensor");
  use_lane_of(tensor);
  if (!lane_ || !lane_->is_asynchronous()) {
    emit_(readable_bytes(tensor.detach().resolve_conj().resolve_neg().to(at::kCPU).contiguous()));
  } else if (tensor.is_conj() || tensor.is_neg()) {
    const at::Tensor resolved = tensor.detach().resolve_conj().resolve_neg().contiguous();
    lane_->follow_current();
    copy_out(resolved);
  } else {
    copy_out(tensor);
  }
}

void DeviceReader::follow_current() {
  if (lane_) {
    lane_->follow_current();
  }
}

void DeviceReader::flush() {
  if (current_) {
    seal();
  }
  while (!on_the_way_.empty()) {
    emit_oldest();
  }
}

void DeviceReader::use_lane_of(const at::Tensor& tensor) {
  if (device_ == tensor.device()) {
    return;
  }
  flush();
  device_ = tensor.device();
  lane_ = DeviceLane::open(tensor.device());
  if (lane_) {
    ring_ = host_ring(tensor.device(), transfer_settings(tensor.device(), {}).ring_capacity);
    lane_->follow_current();
  }
}

void DeviceReader::copy_out(const at::Tensor& tensor) {
  const size_t nbytes = tensor.nbytes();
  for (size_t done = 0; done < nbytes;) {
    if (!current_) {
      current_.emplace(Filling{next_block()});
    }
    const size_t part = std::min(nbytes - done, ring_->block_size() - current_->nbytes);
    current_->sources.push_back(tensor);
    copy_part(tensor, done, part);
    current_->nbytes += part;
    done += part;
    if (current_->nbytes == ring_->block_size()) {
      seal();
    }
  }
}

void DeviceReader::copy_part(const at::Tensor& tensor, size_t offset, size_t nbytes) {
  const DeviceLane::Scope scope(*lane_);
  lane_->copy(bytes_of(host_tensor(current_->block), current_->nbytes, nbytes),
              bytes_of(tensor, offset, nbytes));
}

/// Waits for another's block only while holding none: two savers that hold all of them would wait forever.
staging::BlockRing::Block DeviceReader::next_block() {
  while (!on_the_way_.empty()) {
    if (auto block = ring_->try_acquire()) {
      return std::move(*block);
    }
    emit_oldest();
  }
  return ring_->acquire();
}

void DeviceReader::seal() {
  current_->fence = lane_->mark_use(current_->block);
  on_the_way_.push_back(std::move(*current_));
  current_.reset();
  if (on_the_way_.size() == kMostOnTheWay) {
    emit_oldest();
  }
}

void DeviceReader::emit_oldest() {
  Filling& oldest = on_the_way_.front();
  oldest.fence->wait();
  emit_(oldest.block.bytes().first(oldest.nbytes));
  on_the_way_.pop_front();
}

bool lies_here(const at::Tensor& tensor) { return tensor.is_cpu() && !tensor.is_conj() && !tensor.is_neg(); }

TensorReader::TensorReader(Emit emit)
    : emit_(std::move(emit)), others_([this](std::span<const std::byte> bytes) { tell_apart(bytes); }) {}

void TensorReader::add(const at::Tensor& tensor) {
  const size_t index = count_++;
  if (tensor.numel() == 0) {
    return;
  }
  if (lies_here(tensor)) {
    flush();
    emit_(index, readable_bytes(tensor));
  } else {
    awaited_.push_back({index, tensor.nbytes()});
    others_.add(tensor);
  }
}

void TensorReader::tell_apart(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    Awaited& first = awaited_.front();
    const size_t nbytes = std::min(first.nbytes, bytes.size());
    emit_(first.index, bytes.first(nbytes));
    bytes = bytes.subspan(nbytes);
    first.nbytes -= nbytes;
    if (first.nbytes == 0) {
      awaited_.pop_front();
    }
  }
}

void emit_bytes(const at::Tensor& tensor, const DeviceReader::Emit& emit) {
  if (lies_here(tensor)) {
    emit(readable_bytes(tensor));
    return;
  }
  DeviceReader reader(emit);
  reader.add(tensor);
  reader.flush();
}

}  // namespace torch_safetensors::tensors
