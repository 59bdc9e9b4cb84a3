#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>

namespace torch_safetensors::format {

/// Room for at most `capacity` values, which stay where they are while others are added: views of them last.
/// What is not used is not touched, and takes addresses but no memory. Moving leaves views valid.
template <typename T>
class FixedBuffer {
 public:
  explicit FixedBuffer(size_t capacity = 0) : values_(new T[capacity]), capacity_(capacity) {}
  FixedBuffer(FixedBuffer&& other) noexcept { *this = std::move(other); }
  FixedBuffer& operator=(FixedBuffer&& other) noexcept {
    values_ = std::move(other.values_);
    capacity_ = std::exchange(other.capacity_, 0);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  /// Where the next value will lie.
  const T* end() const { return values_.get() + size_; }

  std::span<const T> values() const { return {values_.get(), size_}; }

  /// Adds `value`. Throws std::length_error if the buffer is full.
  void push_back(T value) {
    check_room(1);
    values_[size_++] = value;
  }

  /// Adds `values` and returns where they now lie. Throws std::length_error if they do not fit.
  std::span<const T> append(std::span<const T> values) {
    check_room(values.size());
    T* const to = values_.get() + size_;
    std::copy(values.begin(), values.end(), to);
    size_ += values.size();
    return {to, values.size()};
  }

 private:
  void check_room(size_t count) const {
    if (count > capacity_ - size_) {
      throw std::length_error("FixedBuffer: more values than there is room for");
    }
  }

  std::unique_ptr<T[]> values_;
  size_t capacity_ = 0;
  size_t size_ = 0;
};

}  // namespace torch_safetensors::format
