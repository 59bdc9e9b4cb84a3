#pragma once

#include <optional>
#include <string>

#include "io/descriptor.h"
#include "io/held_lock.h"

namespace torch_safetensors::io {

/// Keeps others who lock a directory out, where its file system has locks for directories.
class FolderLock {
 public:
  /// Waits for the lock. Throws OsError about `folder`, as HeldLock where there are locks.
  FolderLock(const std::string& folder, const OnWait& on_wait);

 private:
  Descriptor directory_;
  std::optional<HeldLock> lock_;
};

}  // namespace torch_safetensors::io
