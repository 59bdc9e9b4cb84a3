#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

#include "io/stretch.h"

namespace torch_safetensors::io {

/// Appends to a new file past the page cache (O_DIRECT), with two blocks on their way to the disk at a time:
/// what has to be on the disk anyway gets there sooner. Where the file system refuses that, it writes as
/// everybody does.
class DirectWriter {
 public:
  /// True where that is worth while: not in memory, nor over a network.
  static bool is_worth_while(int descriptor);

  /// For the empty file open as `descriptor`; errors are about `given`.
  DirectWriter(int descriptor, std::string given);

  /// Throws OsError.
  void append(std::span<const std::span<const std::byte>> pieces);

  /// Writes what is left, which is not on the disk then, and leaves the descriptor at the end, for ordinary
  /// use. Throws OsError.
  void finish();

 private:
  struct Free {
    void operator()(std::byte* block) const noexcept;
  };
  using Block = std::unique_ptr<std::byte, Free>;
  static Block new_block();

  void write_blocks(const Stretch& stretch, size_t blocks);
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  void stop();

  int descriptor_;
  std::string given_;
  std::atomic<bool> direct_;
  bool finished_ = false;
  uint64_t offset_ = 0;  // what is written
  size_t pending_ = 0;   // bytes in `begun_`
  Block begun_;
  std::array<Block, 2> blocks_;
};

}  // namespace torch_safetensors::io
