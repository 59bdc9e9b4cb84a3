#include "io/dead_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <utility>

#include "io/descriptor.h"
#include "io/file_lock.h"
#include "io/lock_guard.h"
#include "io/retry.h"

namespace torch_safetensors::io {
namespace {

Descriptor open_with(const std::string& path, int access) {
  // The name may be anything: do not follow a link, do not wait for a FIFO's other end.
  return Descriptor(
      retry([&] { return ::open(path.c_str(), access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); }));
}

Descriptor open_to_lock(const std::string& path) {
  // NFS wants write access for an exclusive lock; elsewhere a read-only file can be locked as well.
  Descriptor descriptor = open_with(path, O_RDWR);
  return descriptor || errno == ENOENT ? std::move(descriptor) : open_with(path, O_RDONLY);
}

/// A regular file that nobody has written to for so long.
bool is_candidate(int descriptor, std::chrono::seconds age) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    return false;
  }
  return age.count() == 0 || ::time(nullptr) - status.st_mtime > age.count();
}

}  // namespace

Remains remove_if_dead(const std::string& path, std::chrono::seconds age,
                       const std::function<void()>& before) {
  const Descriptor descriptor = open_to_lock(path);
  if (!descriptor) {
    return errno == ENOENT ? Remains::kNone : Remains::kKept;
  }
  if (!is_candidate(descriptor.get(), age) || try_lock(descriptor.get()) != Lock::kAcquired) {
    return Remains::kKept;
  }
  // Its maker may have renamed it, and the lock is now one of a file with a name: it must not stay.
  const LockGuard guard(descriptor.get());
  // Another may have taken the name before we got the lock. From here on nobody touches the name: that takes
  // the lock we hold.
  if (!is_name_of(path, descriptor.get())) {
    return Remains::kNone;
  }
  if (before) {
    before();
  }
  return ::unlink(path.c_str()) == 0 ? Remains::kRemoved : Remains::kKept;
}

}  // namespace torch_safetensors::io
