#include "io/lock_guard.h"

#include <fcntl.h>
#include <pthread.h>

#include <array>
#include <atomic>

#include "io/file_lock.h"

namespace torch_safetensors::io {
namespace {

/// Descriptors with locks, plus one; 0 is free. More locks at a time than these are kept by children. Without
/// a mutex, which could be locked when a process is forked.
std::array<std::atomic<int>, 1024> locked;

bool exchange(int before, int after) noexcept {
  for (std::atomic<int>& slot : locked) {
    int expected = before;
    if (slot.compare_exchange_strong(expected, after)) {
      return true;
    }
  }
  return false;
}

/// Only what a signal handler may do, too.
void drop_locks_in_child() {
  int null = -1;
  for (std::atomic<int>& slot : locked) {
    if (const int descriptor = slot.exchange(0) - 1; descriptor >= 0) {
      if (null < 0) {
        null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
      }
      if (null >= 0 && ::dup2(null, descriptor) >= 0) {
        ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
      }
    }
  }
  if (null >= 0) {
    ::close(null);
  }
}

[[maybe_unused]] const int registered = ::pthread_atfork(nullptr, nullptr, &drop_locks_in_child);

}  // namespace

LockGuard::LockGuard(int descriptor) noexcept : descriptor_(descriptor) { exchange(0, descriptor + 1); }

LockGuard::~LockGuard() {
  if (process_ == ::getpid()) {
    exchange(descriptor_ + 1, 0);
    unlock(descriptor_);
  }
}

}  // namespace torch_safetensors::io
