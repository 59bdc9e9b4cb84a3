#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>

namespace torch_safetensors::packages {

/// Like `std::shared_mutex`, for `std::shared_lock` and `std::unique_lock`, but no reader passes a writer
/// that waits. glibc's lets them: where readers always overlap, as the requests of a busy server do, its
/// writer waits for ever.
class WriterFirstMutex {
 public:
  void lock() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !has_writer_; });
    has_writer_ = true;
    changed_.wait(lock, [this] { return readers_ == 0; });
  }

  void unlock() {
    {
      const std::lock_guard lock(mutex_);
      has_writer_ = false;
    }
    changed_.notify_all();
  }

  void lock_shared() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !has_writer_; });
    ++readers_;
  }

  void unlock_shared() {
    bool is_last = false;
    {
      const std::lock_guard lock(mutex_);
      is_last = --readers_ == 0;
    }
    if (is_last) {
      changed_.notify_all();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool has_writer_ = false;  // or one that waits for the readers to leave
  size_t readers_ = 0;
};

}  // namespace torch_safetensors::packages
