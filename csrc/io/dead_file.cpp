#include "io/dead_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "io/descriptor.h"
#include "io/file_lock.h"
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

bool is_regular(int descriptor) {
  struct stat status;
  return ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

Remains remove_if_dead(const std::string& path) {
  const Descriptor descriptor = open_to_lock(path);
  if (!descriptor) {
    return errno == ENOENT ? Remains::kNone : Remains::kKept;
  }
  if (!is_regular(descriptor.get()) || try_lock(descriptor.get()) != Lock::kAcquired) {
    return Remains::kKept;
  }
  // Its maker may have renamed it, and another have taken the name, before we got the lock. From here on
  // nobody touches the name: that takes the lock we hold.
  if (!is_name_of(path, descriptor.get())) {
    return Remains::kNone;
  }
  return ::unlink(path.c_str()) == 0 ? Remains::kRemoved : Remains::kKept;
}

}  // namespace torch_safetensors::io
