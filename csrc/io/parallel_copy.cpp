#include "io/parallel_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "io/run_parallel.h"

namespace torch_safetensors::io {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// Copying takes about 0.1 ms per MiB, starting a thread about half of that.
constexpr size_t kMinForThreads = 4 * kMiB;

/// Memory is the limit soon.
constexpr size_t kMaxThreads = 8;

/// Work is handed out in items of this size: a huge page, which is still in the cache from being zeroed when
/// it is filled, and small enough that no thread is left with much to do at the end.
constexpr size_t kItem = 2 * kMiB;

/// How much of the first item to leave out so that the others end where huge pages do.
size_t misalignment(std::span<const CopyRange> ranges) {
  return ranges.empty() ? 0 : reinterpret_cast<uintptr_t>(ranges.front().into) % kItem;
}

void copy(std::span<const std::byte> from, std::byte* into, HugePages* fresh) {
  if (from.empty()) {
    return;  // memcpy forbids the null pointers that empty tensors have
  }
  if (fresh != nullptr) {
    fresh->prepare({into, from.size()});
  }
  std::memcpy(into, from.data(), from.size());
}

/// All ranges as one stretch of bytes, whatever their own sizes.
class Stretch {
 public:
  explicit Stretch(std::span<const CopyRange> ranges) : ranges_(ranges) {
    ends_.reserve(ranges.size());
    uint64_t end = 0;
    for (const CopyRange& range : ranges) {
      ends_.push_back(end += range.from.size());
    }
  }

  uint64_t size() const { return ends_.empty() ? 0 : ends_.back(); }

  /// Copies its bytes from `begin` to `end`.
  void copy_part(uint64_t begin, uint64_t end, HugePages* fresh) const {
    auto index = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin());
    for (; begin < end; ++index) {
      const CopyRange& range = ranges_[index];
      const size_t done = range.from.size() - (ends_[index] - begin);
      const size_t count = std::min(ends_[index], end) - begin;
      copy(range.from.subspan(done, count), range.into + done, fresh);
      begin += count;
    }
  }

 private:
  std::span<const CopyRange> ranges_;
  std::vector<uint64_t> ends_;  // of each range, in bytes from the beginning of the first
};

}  // namespace

void copy_ranges(std::span<const CopyRange> ranges, HugePages* fresh) {
  const Stretch stretch(ranges);
  const uint64_t size = stretch.size();
  if (size < kMinForThreads) {
    stretch.copy_part(0, size, fresh);
    return;
  }
  const size_t threads = std::min<size_t>(std::max(1U, std::thread::hardware_concurrency()), kMaxThreads);
  const size_t left_out = misalignment(ranges);
  run_parallel((left_out + size + kItem - 1) / kItem, threads, [&](size_t item) {
    const uint64_t end = (item + 1) * uint64_t{kItem} - left_out;
    stretch.copy_part(item == 0 ? 0 : end - kItem, std::min(end, size), fresh);
  });
}

}  // namespace torch_safetensors::io
