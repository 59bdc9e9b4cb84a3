#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/uio.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "io/file.h"

namespace torch_safetensors::io {

/// Whether a byte of a file can be read without waiting for the disk.
inline bool is_in_memory(const File& file, size_t offset) {
  char byte;
  iovec piece{&byte, 1};
  return ::preadv2(file.descriptor(), &piece, 1, static_cast<off_t>(offset), RWF_NOWAIT) == 1;
}

/// Writes the file out and has the system forget it.
inline void evict(const File& file) {
  ASSERT_EQ(::fsync(file.descriptor()), 0);
  ASSERT_EQ(::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_DONTNEED), 0);
  ASSERT_FALSE(is_in_memory(file, file.size() - 1));
}

/// Waits for what is done in the background.
inline bool happens(const std::function<bool()>& condition) {
  for (int i = 0; i < 1000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

}  // namespace torch_safetensors::io
