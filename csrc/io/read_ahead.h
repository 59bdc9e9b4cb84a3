#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "io/file.h"

namespace torch_safetensors::io {

/// Has a file read from the disk in the background, ahead of whoever touches its pages.
///
/// A page fault reads as much as the device's read-ahead says, usually 128 KiB, and waits for it: a disk that
/// could do several times as much stands still in between.
class ReadAhead {
 public:
  /// Does nothing where the file is in memory already, or too large to stay there, or small. Never throws.
  explicit ReadAhead(const File& file) noexcept;
  /// Has it end soon. Does not wait for that.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

 private:
  /// Shared with the thread, which nobody joins: it may not exist any more (in a forked child).
  std::shared_ptr<std::atomic<bool>> stop_;
};

}  // namespace torch_safetensors::io
