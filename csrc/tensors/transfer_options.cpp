#include "tensors/transfer_options.h"

#include <c10/core/StorageImpl.h>
#include <c10/util/Exception.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "io/run_parallel.h"

namespace torch_safetensors::tensors {
namespace {

/// Several blocks of 8 MiB being read while others are copied. Larger rings leave the processor's caches, and
/// their bytes cross the memory bus twice more: docs/accelerators.md has figures.
constexpr size_t kRingSize = size_t{64} << 20;

/// What a copy of such a size takes is about what starting it takes.
constexpr size_t kShareBelow = size_t{256} << 10;

std::optional<size_t> from_environment(const char* name, size_t least) {
  const char* const text = std::getenv(name);
  if (text == nullptr) {
    return std::nullopt;
  }
  const std::string_view digits(text);
  size_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  TORCH_CHECK_VALUE(error == std::errc() && end == digits.data() + digits.size() && value >= least, name,
                    ": expected a number from ", least, ", not '", text, "'");
  return value;
}

std::optional<size_t> setting(const char* keyword, std::optional<int64_t> value, const char* variable) {
  if (value) {
    TORCH_CHECK_VALUE(*value > 0, keyword, " must be positive, not ", *value);
    return static_cast<size_t>(*value);
  }
  return from_environment(variable, 1);
}

/// True where tensors of a backend may lie anywhere in memory that it allocated: elsewhere a storage is a
/// handle (Metal) or of a class of the backend's own.
bool has_plain_storage(c10::DeviceType type) {
  switch (type) {
    case c10::DeviceType::CPU:
    case c10::DeviceType::CUDA:
    case c10::DeviceType::XPU:
      return true;
    case c10::DeviceType::PrivateUse1:
      return c10::GetStorageImplCreate(type) == nullptr;
    default:
      return false;
  }
}

}  // namespace

TransferSettings transfer_settings(c10::Device device, const TransferOptions& options) {
  const size_t share_below = from_environment("TORCH_SAFETENSORS_SHARE_BELOW", 0).value_or(kShareBelow);
  return {
      .threads = reader_threads(options.threads, io::default_threads()),
      .ring_capacity =
          setting("ring_size", options.ring_size, "TORCH_SAFETENSORS_RING_SIZE").value_or(kRingSize),
      .shared_below = has_plain_storage(device.type()) ? share_below : 0,
  };
}

std::optional<size_t> asked_threads(const TransferOptions& options) {
  return setting("threads", options.threads, "TORCH_SAFETENSORS_THREADS");
}

size_t reader_threads(std::optional<int64_t> threads, size_t otherwise) {
  return asked_threads({.threads = threads}).value_or(otherwise);
}

}  // namespace torch_safetensors::tensors
