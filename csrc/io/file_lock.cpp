#include "io/file_lock.h"

#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

#include "io/path_checks.h"
#include "io/retry.h"

namespace torch_safetensors::io {

Lock try_lock(int descriptor) {
  // flock and not fcntl: fcntl's locks do not hold against other threads, and closing any descriptor of the
  // file drops them.
  if (retry([&] { return ::flock(descriptor, LOCK_EX | LOCK_NB); }) == 0) {
    return Lock::kAcquired;
  }
  return errno == EWOULDBLOCK ? Lock::kBusy : Lock::kUnsupported;
}

void unlock(int descriptor) noexcept {
  const int saved = errno;
  ::flock(descriptor, LOCK_UN);
  errno = saved;
}

bool is_name_of(const std::string& path, int descriptor) {
  struct stat named;
  struct stat open;
  return ::lstat(path.c_str(), &named) == 0 && ::fstat(descriptor, &open) == 0 && is_same_file(named, open);
}

}  // namespace torch_safetensors::io
