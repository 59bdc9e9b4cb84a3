#pragma once

namespace torch_safetensors::staging {

/// A point that a device has still to reach: until then it reads or writes the memory that goes with it.
class Fence {
 public:
  virtual ~Fence() = default;

  /// True once the device is past it. May throw what the device reports.
  virtual bool is_done() = 0;

  /// Blocks the calling thread until the device is past it. May throw what the device reports.
  virtual void wait() = 0;
};

}  // namespace torch_safetensors::staging
