#pragma once

#include <mutex>
#include <shared_mutex>

namespace torch_safetensors::packages {

/// A `std::shared_mutex` in which no reader passes a writer that waits. glibc's lets them: where readers
/// always overlap, as the requests of a busy server do, its writer waits for ever. A thread must not be a
/// reader twice at a time.
class WriterFirstMutex {
 public:
  void lock() {
    turnstile_.lock();
    mutex_.lock();
  }
  void unlock() {
    mutex_.unlock();
    turnstile_.unlock();
  }

  void lock_shared() {
    const std::lock_guard turn(turnstile_);
    mutex_.lock_shared();
  }
  void unlock_shared() { mutex_.unlock_shared(); }

 private:
  std::mutex turnstile_;  // all come through here, and a writer stays in it
  std::shared_mutex mutex_;
};

}  // namespace torch_safetensors::packages
