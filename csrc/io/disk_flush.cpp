#include "io/disk_flush.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "io/descriptor.h"
#include "io/os_error.h"
#include "io/retry.h"

namespace torch_safetensors::io {
namespace {

int flush(int descriptor) {
#if defined(F_FULLFSYNC)
  // On macOS fsync stops at the drive's own cache. Not every file system there knows this one.
  if (retry([&] { return ::fcntl(descriptor, F_FULLFSYNC); }) != -1) {
    return 0;
  }
#endif
  return retry([&] { return ::fsync(descriptor); });
}

}  // namespace

void flush_file(int descriptor, const std::string& given) {
  if (flush(descriptor) != 0) {
    throw_os_error(errno, given);
  }
}

void flush_directory(const std::string& directory, const std::string& given) {
  const std::string path = directory.empty() ? "." : directory;
  const Descriptor descriptor(
      retry([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (!descriptor) {
    if (errno != EACCES && errno != EPERM) {
      throw_os_error(errno, given);
    }
    ::sync();  // a directory that may be written to, but not be read
    return;
  }
  if (flush(descriptor.get()) != 0 && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP &&
      errno != ENOTSUP) {
    throw_os_error(errno, given);
  }
}

void check_delayed_errors(int descriptor, const std::string& given) {
  Descriptor second(retry([&] { return ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0); }));
  if (!second) {
    flush_file(descriptor, given);  // no descriptor is left: slower, but it asks the same
    return;
  }
  if (const int error = second.close(); error == EINTR) {
    flush_file(descriptor, given);
  } else if (error != 0) {
    throw_os_error(error, given);
  }
}

}  // namespace torch_safetensors::io
