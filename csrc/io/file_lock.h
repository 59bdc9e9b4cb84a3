#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <string>

namespace torch_safetensors::io {

/// What became of an attempt to lock a file.
enum class Lock {
  kAcquired,     ///< `unlock` ends it, or the end of the last process that has the descriptor.
  kBusy,         ///< Somebody else holds it.
  kUnsupported,  ///< The file system has no locks, as errno says: nothing is known about others.
};

/// Tries to lock the whole file without waiting, against other processes and other descriptors of this one.
Lock try_lock(int descriptor);

/// Gives a lock up. Closing the descriptor is not enough: a child that was forked while the lock was held has
/// the descriptor, too, and the lock with it. Leaves errno alone.
void unlock(int descriptor) noexcept;

/// Gives up the lock of an open file at the end, or right away in a child that was forked meanwhile: there
/// the lock is the parent's, and is left alone.
class LockGuard {
 public:
  explicit LockGuard(int descriptor) noexcept : descriptor_(descriptor) {}
  ~LockGuard() {
    if (process_ == ::getpid()) {
      unlock(descriptor_);
    }
  }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  int descriptor_;
  pid_t process_ = ::getpid();
};

/// True if `path` is the name of the open file.
bool is_name_of(const std::string& path, int descriptor);

}  // namespace torch_safetensors::io
