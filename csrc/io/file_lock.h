#pragma once

#include <string>

namespace torch_safetensors::io {

/// What became of an attempt to lock a file.
enum class Lock {
  kAcquired,     ///< `unlock` ends it, or the end of the last process that has the descriptor: see LockGuard.
  kBusy,         ///< Somebody else holds it.
  kUnsupported,  ///< The file system has no locks, as errno says: nothing is known about others.
};

/// Tries to lock the whole file without waiting, against other processes and other descriptors of this one.
Lock try_lock(int descriptor);

/// Gives a lock up. Closing the descriptor is not enough: a child that was forked while the lock was held has
/// the descriptor, too, and the lock with it. Leaves errno alone.
void unlock(int descriptor) noexcept;

/// True if `path` is the name of the open file.
bool is_name_of(const std::string& path, int descriptor);

}  // namespace torch_safetensors::io
