#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "io/file.h"

namespace torch_safetensors::io {

/// Whether the page of a file that has this byte is in memory. To try to read it would have it read ahead.
inline bool is_in_memory(const File& file, size_t offset) {
  const auto page_size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto page = static_cast<off_t>(offset / page_size * page_size);
  void* const mapped = ::mmap(nullptr, page_size, PROT_READ, MAP_SHARED, file.descriptor(), page);
  unsigned char state = 0;
  EXPECT_EQ(::mincore(mapped, page_size, &state), 0);
  ::munmap(mapped, page_size);
  return (state & 1) != 0;
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
