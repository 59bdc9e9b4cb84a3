#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace torch_safetensors::tensors {

/// What a caller may say about how bytes are read and go to a device; environment variables and defaults say
/// the rest.
struct TransferOptions {
  std::optional<int64_t> threads = std::nullopt;
  std::optional<int64_t> ring_size = std::nullopt;
};

/// How one call moves its bytes.
struct TransferSettings {
  size_t threads;        ///< Readers.
  size_t ring_capacity;  ///< Bytes of host memory on the way.
  size_t shared_below;   ///< Smaller tensors share device memory; 0: none does.
};

/// The keyword, or else TORCH_SAFETENSORS_THREADS, TORCH_SAFETENSORS_RING_SIZE,
/// TORCH_SAFETENSORS_SHARE_BELOW, or else 8 threads or as many as there are cores, 64 MiB, 256 KiB. Tensors
/// share memory only where a backend's storage is plain memory. Throws ValueError (c10) for values that are
/// not positive numbers.
TransferSettings transfer_settings(c10::Device device, const TransferOptions& options);

/// How many threads shall read, where the keyword or else TORCH_SAFETENSORS_THREADS says so. Throws as
/// `transfer_settings`.
std::optional<size_t> asked_threads(const TransferOptions& options);

/// How many threads read where that is not for the number of cores to say: the keyword, or else
/// TORCH_SAFETENSORS_THREADS, or else `otherwise`. Throws as `transfer_settings`.
size_t reader_threads(std::optional<int64_t> threads, size_t otherwise);

}  // namespace torch_safetensors::tensors
