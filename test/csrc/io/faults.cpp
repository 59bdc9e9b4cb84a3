#include "io/faults.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/vfs.h>
#endif

#include <cerrno>
#include <cstdio>

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

int close(int descriptor) {
  static const auto real = next(&close, "close");
  const int error = faults.close != 0 && is_writable_file(descriptor) ? faults.close.load() : 0;
  const int result = real(descriptor);
  return error != 0 ? fail(error) : result;
}

#if defined(__linux__)
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
