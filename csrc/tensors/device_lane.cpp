#include "tensors/device_lane.h"

#include <ATen/Functions.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "tensors/byte_range.h"
#include "tensors/host_blocks.h"

namespace torch_safetensors::tensors {

LaneFence::LaneFence(const c10::Stream& stream) : event_(stream.device_type()) { event_.record(stream); }

std::shared_ptr<DeviceLane> DeviceLane::open(c10::Device device) {
  if (device.is_cpu()) {
    return std::shared_ptr<DeviceLane>(new DeviceLane(device, std::nullopt));
  }
  if (!c10::impl::hasDeviceGuardImpl(device.type())) {
    return nullptr;
  }
  // Backends start up with their first tensor, and only then have streams.
  device = at::empty({0}, at::TensorOptions().device(device).dtype(at::kByte)).device();
  try {
    const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
    LaneFence probe(stream);
    probe.is_done();
    return std::shared_ptr<DeviceLane>(new DeviceLane(device, stream));
  } catch (const c10::Error&) {
    return nullptr;  // what is wrong with the device itself, torch's own copies say
  }
}

DeviceLane::Scope::Scope(const DeviceLane& lane) {
  if (lane.stream_) {
    stream_.emplace(*lane.stream_);
  }
}

c10::Stream DeviceLane::current() const {
  return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
}

void DeviceLane::follow_current() const {
  if (stream_) {
    LaneFence(current()).block(*stream_);
  }
}

void DeviceLane::precede_current() const {
  if (stream_) {
    LaneFence(*stream_).block(current());
  }
}

void DeviceLane::hand_over(const LaneFence* fence, const c10::DataPtr& memory) const {
  if (stream_) {
    if (fence != nullptr) {
      fence->block(current());
    }
    c10::impl::VirtualGuardImpl(device_.type()).recordDataPtrOnStream(memory, current());
  }
}

void DeviceLane::copy(const at::Tensor& to, const at::Tensor& from) const {
  to.copy_(from, /*non_blocking=*/is_asynchronous());
}

std::shared_ptr<LaneFence> DeviceLane::mark() const {
  return stream_ ? std::make_shared<LaneFence>(*stream_) : nullptr;
}

std::shared_ptr<LaneFence> DeviceLane::mark_use(const staging::BlockRing::Block& block) const {
  if (!stream_) {
    return nullptr;
  }
  try {
    record_use(block, *stream_);
    return mark();
  } catch (...) {
    c10::impl::VirtualGuardImpl(device_.type()).synchronizeStream(*stream_);
    throw;
  }
}

at::Tensor bytes_of(const at::Tensor& tensor, size_t offset, size_t nbytes) {
  check_memory(tensor, "a tensor");
  // By hand, as torch's own view_dtype does it, and for the dtypes that it refuses.
  at::Tensor bytes =
      at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(tensor.storage()),
                                               tensor.key_set(), c10::scalarTypeToTypeMeta(at::kByte));
  c10::TensorImpl* const impl = bytes.unsafeGetTensorImpl();
  impl->set_storage_offset(tensor.storage_offset() * tensor.element_size() + static_cast<int64_t>(offset));
  impl->set_sizes_contiguous({static_cast<int64_t>(nbytes)});
  return bytes;
}

}  // namespace torch_safetensors::tensors
