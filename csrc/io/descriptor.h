#pragma once

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace torch_safetensors::io {

/// Owns a file descriptor, or none.
class Descriptor {
 public:
  /// Takes over what `open` returned: a negative value is none.
  explicit Descriptor(int value = -1) noexcept : value_(value) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }

  explicit operator bool() const noexcept { return value_ >= 0; }
  int get() const noexcept { return value_; }

  /// Closes it and returns 0 or the error number: network file systems report a full disk only here.
  /// Leaves errno alone, so that cleaning up does not hide what went wrong.
  int close() noexcept {
    if (value_ < 0) {
      return 0;
    }
    const int saved = errno;
    // Not made again after EINTR: on Linux the descriptor is gone then, and may be another file's.
    const int error = ::close(std::exchange(value_, -1)) == 0 ? 0 : errno;
    errno = saved;
    return error;
  }

 private:
  int value_;
};

}  // namespace torch_safetensors::io
