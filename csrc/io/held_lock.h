#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>

#include "io/lock_guard.h"

namespace torch_safetensors::io {

/// Called again and again, on its thread, by who waits for a lock. `notice` is empty, except once after some
/// seconds, when it says which file is waited for and who holds the lock. An exception ends the wait. Nobody
/// is told where it is empty.
using OnWait = std::function<void(const std::string& notice)>;

/// How long a lock is waited for.
struct Patience {
  std::chrono::duration<double> limit;
  std::chrono::duration<double> notice{5};

  /// The limit is TORCH_SAFETENSORS_LOCK_TIMEOUT seconds, or 10 minutes. Throws OsError (EINVAL) about
  /// `given` where the variable is not such a number.
  static Patience from_environment(const std::string& given);
};

/// The lock of a file that is open as long as this object lives. It excludes other threads and processes.
class HeldLock {
 public:
  /// Waits for the lock. Throws OsError about `given`: ETIMEDOUT at the end of the patience, with the holder;
  /// EDEADLK at once where the calling thread itself is the holder; the error of flock where the file system
  /// has no locks. Also throws what `on_wait` throws.
  HeldLock(int descriptor, const std::string& given, const OnWait& on_wait);
  HeldLock(int descriptor, const std::string& given, const OnWait& on_wait, const Patience& patience);
  ~HeldLock();
  HeldLock(const HeldLock&) = delete;
  HeldLock& operator=(const HeldLock&) = delete;

 private:
  LockGuard lock_;
  int descriptor_;
};

}  // namespace torch_safetensors::io
