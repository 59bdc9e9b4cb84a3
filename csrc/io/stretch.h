#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace torch_safetensors::io {

/// Pieces of memory as one stretch of bytes, whatever their own sizes. Refers to the pieces.
class Stretch {
 public:
  explicit Stretch(std::span<const std::span<const std::byte>> pieces);

  uint64_t size() const { return ends_.empty() ? 0 : ends_.back(); }

  /// Fills `into` with its bytes from `begin` on, of which there must be enough. Safe to call from several
  /// threads.
  void copy_to(std::span<std::byte> into, uint64_t begin) const;

 private:
  std::span<const std::span<const std::byte>> pieces_;
  std::vector<uint64_t> ends_;  // of each piece
};

}  // namespace torch_safetensors::io
