#pragma once

#include <sys/types.h>
#include <unistd.h>

namespace torch_safetensors::io {

/// Gives up the lock of an open file at its end; to be made when the lock was acquired, and destroyed before
/// the descriptor is closed.
///
/// A lock (flock) belongs to the open file and not to the process: a child that is forked has it, too, and
/// would keep it as long as it lives. So a child gets another file (/dev/null) under the descriptor's number
/// when it is forked, and there the end of this object leaves the lock alone, which is the parent's.
class LockGuard {
 public:
  explicit LockGuard(int descriptor) noexcept;
  ~LockGuard();
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  int descriptor_;
  pid_t process_ = ::getpid();
};

}  // namespace torch_safetensors::io
