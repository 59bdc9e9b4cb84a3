#include "tensors/host_blocks.h"

#include <ATen/Functions.h>
#include <ATen/core/CachingHostAllocator.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "staging/process_ring.h"
#include "tensors/storage.h"

namespace torch_safetensors::tensors {
namespace {

/// What owns the memory of a block.
struct HostTensor {
  at::Tensor bytes;
  at::HostAllocator* allocator;  // null for plain memory
};

at::HostAllocator* pinning_allocator(c10::DeviceType type) {
  if (type == c10::DeviceType::CPU) {
    return nullptr;
  }
  try {
    return at::getHostAllocator(type);
  } catch (const c10::Error&) {
    return nullptr;  // the backend registered none
  }
}

at::Tensor host_bytes(at::HostAllocator* allocator, size_t size) {
  if (allocator == nullptr) {
    return at::detail::empty_cpu({static_cast<int64_t>(size)}, at::kByte, /*pin_memory=*/false);
  }
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), size,
                                                       allocator->allocate(size), allocator,
                                                       /*resizable=*/false);
  at::Tensor bytes = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(std::move(storage)), c10::DispatchKey::CPU, c10::scalarTypeToTypeMeta(at::kByte));
  bytes.unsafeGetTensorImpl()->set_sizes_contiguous({static_cast<int64_t>(size)});
  return bytes;
}

const HostTensor& owner_of(const staging::BlockRing::Block& block) {
  return *static_cast<const HostTensor*>(block.owner().get());
}

}  // namespace

std::shared_ptr<staging::BlockRing> host_ring(c10::Device device, size_t capacity) {
  using staging::BlockRing;
  at::HostAllocator* const allocator = pinning_allocator(device.type());
  const auto allocate = [allocator](size_t size) -> staging::HostMemory {
    const auto owner = std::make_shared<HostTensor>(host_bytes(allocator, size), allocator);
    return {writable_bytes(owner->bytes).data(), owner};
  };
  return staging::process_ring(
      static_cast<int>(device.type()), capacity, allocate,
      allocator != nullptr ? BlockRing::Free::kAtOnce : BlockRing::Free::kAfterFence);
}

const at::Tensor& host_tensor(const staging::BlockRing::Block& block) { return owner_of(block).bytes; }

void record_use(const staging::BlockRing::Block& block, const c10::Stream& stream) {
  const auto& [bytes, allocator] = owner_of(block);
  if (allocator != nullptr) {
    const c10::DataPtr& memory = bytes.storage().data_ptr();
    allocator->record_event(memory.get(), memory.get_context(), stream);
  }
}

}  // namespace torch_safetensors::tensors
