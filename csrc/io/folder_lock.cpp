#include "io/folder_lock.h"

#include <fcntl.h>

#include <cerrno>

#include "io/file_lock.h"
#include "io/os_error.h"
#include "io/path_checks.h"
#include "io/retry.h"

namespace torch_safetensors::io {
FolderLock::FolderLock(const std::string& folder, const OnWait& on_wait) {
  require_no_nul(folder);
  directory_ = Descriptor(retry([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (!directory_) {
    throw_os_error(errno, folder);
  }
  // If this acquires it, the lock is found to be acquired.
  if (try_lock(directory_.get()) != Lock::kUnsupported) {
    lock_.emplace(directory_.get(), folder, on_wait);
  }
}

}  // namespace torch_safetensors::io
