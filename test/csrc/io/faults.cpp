#include "io/faults.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/vfs.h>
#endif

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <string>

// glibc declares some of these noexcept, macOS none.
#if defined(__GLIBC__)
#define NOTHROW noexcept
#else
#define NOTHROW
#endif

namespace {

using torch_safetensors::io::faults;

template <typename Function>
Function* next(Function*, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

int fail(int error) {
  errno = error;
  return -1;
}

bool is_directory(int descriptor) {
  struct stat status;
  return ::fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_writable_file(int descriptor) {
  struct stat status;
  return ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) &&
         (::fcntl(descriptor, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

}  // namespace

extern "C" {

int rename(const char* from, const char* to) NOTHROW {
  static const auto real = next(&rename, "rename");
  return faults.rename != 0 ? fail(faults.rename) : real(from, to);
}

int fchmod(int descriptor, mode_t mode) NOTHROW {
  static const auto real = next(&fchmod, "fchmod");
  return faults.fchmod != 0 ? fail(faults.fchmod) : real(descriptor, mode);
}

int fchown(int descriptor, uid_t user, gid_t group) NOTHROW {
  static const auto real = next(&fchown, "fchown");
  return faults.fchown != 0 ? fail(faults.fchown) : real(descriptor, user, group);
}

int flock(int descriptor, int operation) NOTHROW {
  static const auto real = next(&flock, "flock");
  if (faults.before_flock) {
    std::exchange(faults.before_flock, nullptr)();
  }
  return faults.flock != 0 ? fail(faults.flock) : real(descriptor, operation);
}

int ftruncate(int descriptor, off_t size) NOTHROW {
  static const auto real = next(&ftruncate, "ftruncate");
  return faults.ftruncate != 0 ? fail(faults.ftruncate) : real(descriptor, size);
}

int fsync(int descriptor) {
  static const auto real = next(&fsync, "fsync");
  ++faults.fsyncs;
  const int error = is_directory(descriptor) ? faults.fsync_directory : faults.fsync_file;
  return error != 0 ? fail(error) : real(descriptor);
}

int madvise(void* begin, size_t size, int advice) NOTHROW {
  static const auto real = next(&madvise, "madvise");
  ++faults.madvises;
  if (faults.before_madvise) {
    faults.before_madvise();
  }
  return faults.madvise != 0 ? fail(faults.madvise) : real(begin, size, advice);
}

ssize_t preadv(int descriptor, const struct iovec* pieces, int count, off_t offset) {
  static const auto real = next(&preadv, "preadv");
  if (faults.before_preadv) {
    faults.before_preadv();
  }
  return real(descriptor, pieces, count, offset);
}

int close(int descriptor) {
  static const auto real = next(&close, "close");
  const int error = faults.close != 0 && is_writable_file(descriptor) ? faults.close.load() : 0;
  const int result = real(descriptor);
  return error != 0 ? fail(error) : result;
}

#if defined(__linux__)
int fcntl(int descriptor, int command, ...) {
  static const auto real = next(&fcntl, "fcntl");
  va_list arguments;
  va_start(arguments, command);
  const long argument = va_arg(arguments, long);
  va_end(arguments);
  return command == F_SETFL && faults.set_flags != 0 ? fail(faults.set_flags)
                                                     : real(descriptor, command, argument);
}

int fallocate(int descriptor, int mode, off_t offset, off_t size) {
  static const auto real = next(&fallocate, "fallocate");
  return faults.fallocate != 0 ? fail(faults.fallocate) : real(descriptor, mode, offset, size);
}

ssize_t pwrite(int descriptor, const void* bytes, size_t size, off_t offset) {
  static const auto real = next(&pwrite, "pwrite");
  if ((::fcntl(descriptor, F_GETFL) & O_DIRECT) != 0) {
    ++faults.direct_pwrites;
    if (faults.direct_pwrite != 0) {
      return fail(faults.direct_pwrite);
    }
  }
  if (faults.pwrite_interrupts.fetch_sub(1) > 0) {
    return fail(EINTR);
  }
  if (faults.pwrite != 0 && faults.pwrite_room.fetch_sub(static_cast<long>(size)) < static_cast<long>(size)) {
    return fail(faults.pwrite);
  }
  if (faults.pwrite_cuts.fetch_sub(1) > 0) {
    // As a full page cache or a signal would: what is left does not begin at a block of the disk.
    // Through a descriptor of its own: other threads change the flags of this one meanwhile.
    const std::string self = "/proc/self/fd/" + std::to_string(descriptor);
    const int buffered = ::open(self.c_str(), O_WRONLY | O_CLOEXEC);
    const ssize_t count = real(buffered, bytes, size / 2 - 1, offset);
    ::close(buffered);
    return count;
  }
  return real(descriptor, bytes, size, offset);
}

int statfs(const char* path, struct statfs* status) NOTHROW {
  static const auto real = next(&statfs, "statfs");
  if (faults.fstatfs == 0) {
    return fail(ENOSYS);
  }
  const int result = real(path, status);
  if (faults.fstatfs != -1) {
    status->f_type = static_cast<decltype(status->f_type)>(faults.fstatfs);
  }
  return result;
}

int fstatfs(int descriptor, struct statfs* status) NOTHROW {
  static const auto real = next(&fstatfs, "fstatfs");
  if (faults.fstatfs == 0) {
    return fail(ENOSYS);
  }
  const int result = real(descriptor, status);
  if (faults.fstatfs != -1) {
    status->f_type = static_cast<decltype(status->f_type)>(faults.fstatfs);
  }
  return result;
}
#endif

}  // extern "C"
