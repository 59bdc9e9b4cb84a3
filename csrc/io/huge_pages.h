#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace torch_safetensors::io {

/// Asks for huge pages while fresh memory is being filled: they make its first touch several times as fast.
///
/// Where free memory is in small pieces, the system may move others' pages about for each huge page before it
/// gives one, for seconds in all. So they are asked for bit by bit, and no longer once they have cost more
/// than small pages would have.
class HugePages {
 public:
  /// `memories` is what the parts will lie in, each in one of them. Small ones are left alone, unless they
  /// lie side by side.
  explicit HugePages(std::span<const std::span<std::byte>> memories);
  explicit HugePages(std::span<std::byte> memory) : HugePages({&memory, 1}) {}

  /// To be called before a part is written for the first time, by several threads at once if they like. What
  /// the part holds is lost.
  void prepare(std::span<std::byte> part);

 private:
  /// The whole huge pages in a memory, or in neighbours.
  struct Area {
    uintptr_t begin;
    size_t count;
    size_t first;  // among all
  };

  std::vector<Area> areas_;               // by address
  std::vector<std::atomic<bool>> pages_;  // true: asked for already
  std::atomic<int64_t> credit_;           // nanoseconds that they may still lose
};

}  // namespace torch_safetensors::io
