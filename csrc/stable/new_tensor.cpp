#include "stable/new_tensor.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::stable {
namespace {

/// What torch's own allocator aligns to.
constexpr size_t kAlignment = 64;

[[noreturn]] void throw_not_held(const std::string& source, const format::TensorEntry& entry,
                                 const std::string& reason) {
  throw_malformed(source, "tensor " + format::in_quotes(entry.name) + ": torch cannot hold " +
                              format::describe(entry.dtype, entry.shape) + ": " + reason);
}

/// False where they do not fit, which only those of a tensor without elements can fail to.
bool contiguous_strides(const std::vector<int64_t>& sizes, std::vector<int64_t>& strides) {
  strides.resize(sizes.size());
  int64_t stride = 1;
  for (size_t dim = sizes.size(); dim > 0; --dim) {
    strides[dim - 1] = stride;
    if (dim > 1 && __builtin_mul_overflow(stride, std::max<int64_t>(sizes[dim - 1], 1), &stride)) {
      return false;
    }
  }
  return true;
}

Tensor call(const char* op, const Tensor& tensor) {
  std::array<StableIValue, 1> stack{torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace

void throw_malformed(const std::string& source, const std::string& message) {
  throw SafetensorError(source + ": " + message);
}

TensorType tensor_type(const std::string& source, const format::TensorEntry& entry) {
  const auto dtype = shared::to_scalar_type(entry.dtype);
  if (!dtype) {
    throw_not_held(source, entry, "it has no such dtype; load the other tensors by name");
  }
  const int64_t packed = shared::packing(entry.dtype);
  TensorType type{*dtype, {entry.shape.begin(), entry.shape.end()}, {}, entry.nbytes(), 0};
  type.item_size = format::dtype_bits(entry.dtype) * packed / 8;
  if (packed > 1) {
    if (type.sizes.back() % packed != 0) {
      throw_not_held(
          source, entry,
          "the last dimension must be a multiple of " + std::to_string(packed) + ", which share a byte");
    }
    type.sizes.back() /= packed;
  }
  if (!contiguous_strides(type.sizes, type.strides)) {
    throw_not_held(source, entry, "its strides do not fit in 64 bits");
  }
  return type;
}

Tensor empty_tensor(const TensorType& type, Device device) {
  return torch::stable::empty(type.sizes, type.dtype, std::nullopt, device);
}

Tensor tensor_over(std::byte* data, const TensorType& type, std::shared_ptr<void> owner) {
  return torch::stable::from_blob(data, type.sizes, type.strides, Device(torch::headeronly::DeviceType::CPU),
                                  type.dtype, [owner = std::move(owner)](void*) mutable { owner.reset(); });
}

Tensor new_tensor(const TensorType& type, std::byte*& data) {
  const size_t rounded = (type.nbytes + kAlignment - 1) / kAlignment * kAlignment;
  void* const memory = std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  data = static_cast<std::byte*>(memory);
  return tensor_over(data, type, std::shared_ptr<void>(memory, std::free));
}

void check_memory(const Tensor& tensor, const std::string& label) {
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  const shared::Layout layout{{sizes.data(), sizes.size()},
                              {strides.data(), strides.size()},
                              tensor.storage_offset(),
                              static_cast<uint64_t>(tensor.element_size())};
  int64_t nbytes = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &nbytes));
  // There is no other way to ask for the address of a storage.
  const auto first = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const bool has_data = first != static_cast<uintptr_t>(layout.offset) * layout.item_size;
  if (const auto fault = shared::memory_fault(layout, {static_cast<uint64_t>(nbytes), has_data})) {
    throw std::invalid_argument(label + " " + *fault);
  }
}

Tensor resolved(const Tensor& tensor) {
  return call("aten::resolve_neg", call("aten::resolve_conj", tensor));
}

bool is_aligned(const std::byte* data, const TensorType& type) {
  return reinterpret_cast<uintptr_t>(data) % type.item_size == 0;
}

}  // namespace torch_safetensors::stable
