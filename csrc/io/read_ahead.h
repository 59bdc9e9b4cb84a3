#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "io/steady_file.h"

namespace torch_safetensors::io {

/// Has files read from the disk in the background, one after the other, ahead of whoever touches their pages.
///
/// A page fault reads as much as the device's read-ahead says, usually 128 KiB, and waits for it: a disk that
/// could do several times as much stands still in between.
class ReadAhead {
 public:
  /// Does nothing where they are too large to stay in memory, and leaves out those that are there already, or
  /// small, or replaced by others. Never throws.
  explicit ReadAhead(std::span<const std::shared_ptr<const SteadyFile>> files) noexcept;
  /// Has it end soon. Does not wait for that.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

 private:
  /// Shared with the thread, which nobody joins: it may not exist any more (in a forked child).
  std::shared_ptr<std::atomic<bool>> stop_;
};

}  // namespace torch_safetensors::io
