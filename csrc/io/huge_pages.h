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
  /// `memory` is what the parts will lie in. It is left alone where it is small.
  explicit HugePages(std::span<std::byte> memory);

  /// To be called before a part is written for the first time, by several threads at once if they like. What
  /// the part holds is lost.
  void prepare(std::span<std::byte> part);

 private:
  uintptr_t begin_ = 0;                   // of the whole huge pages in the memory
  std::vector<std::atomic<bool>> pages_;  // true: asked for already
  std::atomic<int64_t> credit_;           // nanoseconds that they may still lose
};

}  // namespace torch_safetensors::io
