#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <functional>

/// An accelerator that exists in tests alone: torch's PrivateUse1, with streams that do nothing until
/// somebody waits for them, and then only what they must. So a copy that is not ordered with what comes
/// before or after it does not race with it: it is always too late, or too early, and shows as wrong bytes.
/// Its allocators hand memory out again as torch's caching ones do, and scribble over it as its next owner
/// would.
namespace torch_safetensors::fake {

inline const c10::Device kDevice{c10::DeviceType::PrivateUse1, 0};

/// What the device has seen since `reset`.
struct Counts {
  size_t device_bytes;  ///< In use now.
  size_t host_bytes;    ///< Pinned and in use now.
  size_t host_peak;
  size_t copies;
  size_t streams;  ///< Taken from the pool.
  size_t events;   ///< Made.
};

Counts counts();

/// Runs everything that is enqueued, ends all faults, and counts anew.
void reset();

/// Puts work on the calling thread's current stream.
void enqueue(std::function<void()> work);

/// The n-th of the following copies, or allocations on the device, throws. 0: none.
void fail_copy(size_t n);
void fail_allocation(size_t n);

}  // namespace torch_safetensors::fake
