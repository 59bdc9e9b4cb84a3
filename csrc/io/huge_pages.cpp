#include "io/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <ctime>

namespace torch_safetensors::io {
namespace {

/// On x86-64, and on arm64 with its usual small pages. Elsewhere the advice may come to nothing.
constexpr uintptr_t kHugePage = uintptr_t{2} << 20;

/// Smaller memory may belong to malloc's heap, is most likely not fresh, and costs little.
constexpr size_t kMinMemory = 4 * kHugePage;

/// What an allocator leaves between memories that it gave one after the other: those count as one.
constexpr uintptr_t kMaxGap = 4096;

/// What the first touch of so much memory takes in small pages, at 2 GB/s. A huge page takes a quarter of it
/// where the system has one at hand.
constexpr int64_t kSmallPagesTime = 1'000'000;

/// What may be lost at first, and after however much was gained. In virtual machines that give free memory
/// back to their host, every huge page may cost five times what small ones do, and that is not to be found
/// out at the price of them all.
constexpr int64_t kInitialCredit = 20'000'000;
constexpr int64_t kMaxCredit = 100'000'000;

/// For a system that has none.
constexpr int64_t kNeverAgain = -kMaxCredit - 1;

bool ask_for_huge_page([[maybe_unused]] uintptr_t address) {
#if defined(MADV_HUGEPAGE)
  return ::madvise(reinterpret_cast<void*>(address), kHugePage, MADV_HUGEPAGE) == 0;
#else
  return false;
#endif
}

int64_t now(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

/// What the system has done on behalf of this thread, mostly: waiting counts little, since it is usually for
/// a core that others use.
int64_t cost_so_far() { return now(CLOCK_THREAD_CPUTIME_ID) + now(CLOCK_MONOTONIC) / 8; }

/// Asks for a huge page and touches it. Returns the nanoseconds saved, negative for lost ones.
int64_t try_page(uintptr_t page, volatile std::byte* touched) {
  const int64_t start = cost_so_far();
  if (!ask_for_huge_page(page)) {
    return kNeverAgain;
  }
  *touched = std::byte{0};
  return kSmallPagesTime - (cost_so_far() - start);
}

}  // namespace

HugePages::HugePages(std::span<const std::span<std::byte>> memories) : credit_(kInitialCredit) {
  std::vector<std::span<std::byte>> sorted(memories.begin(), memories.end());
  std::sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.data() < b.data(); });
  size_t count = 0;
  for (size_t i = 0; i < sorted.size();) {
    const auto address = reinterpret_cast<uintptr_t>(sorted[i].data());
    uintptr_t end = address + sorted[i].size();
    for (++i; i < sorted.size() && reinterpret_cast<uintptr_t>(sorted[i].data()) <= end + kMaxGap; ++i) {
      end = std::max(end, reinterpret_cast<uintptr_t>(sorted[i].data() + sorted[i].size()));
    }
    if (end - address >= kMinMemory) {
      const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
      areas_.push_back({begin, (end - begin) / kHugePage, count});
      count += areas_.back().count;
    }
  }
  pages_ = std::vector<std::atomic<bool>>(count);
}

void HugePages::prepare(std::span<std::byte> part) {
  const auto address = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t part_end = address + part.size();
  // The last one that begins before the part ends is the one the part lies in, if any is.
  const auto after = std::lower_bound(areas_.begin(), areas_.end(), part_end,
                                      [](const Area& area, uintptr_t end) { return area.begin < end; });
  if (after == areas_.begin()) {
    return;
  }
  const Area& area = *std::prev(after);
  const size_t end = std::min(area.count, (part_end - area.begin + kHugePage - 1) / kHugePage);
  for (size_t i = address <= area.begin ? 0 : (address - area.begin) / kHugePage; i < end; ++i) {
    if (credit_.load(std::memory_order_relaxed) < 0) {
      return;
    }
    if (!pages_[area.first + i].exchange(true, std::memory_order_relaxed)) {
      const uintptr_t page = area.begin + i * kHugePage;
      // Touched in the part: what else lies in the page may be another thread's.
      const int64_t saved = try_page(page, reinterpret_cast<volatile std::byte*>(std::max(page, address)));
      credit_ = std::min(credit_ + saved, kMaxCredit);
    }
  }
}

}  // namespace torch_safetensors::io
