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

/// What the first touch of so much memory takes in small pages, at 1 to 2 GB/s. A huge page takes a quarter
/// of it where the system has one at hand.
constexpr int64_t kSmallPagesTime = 2'000'000;

/// What may be lost at first, and after however much was gained.
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

/// The number of huge pages that begin before `address`, counted from `origin`.
size_t pages_before(uintptr_t address, uintptr_t origin) {
  return address <= origin ? 0 : (address - origin + kHugePage - 1) / kHugePage;
}

}  // namespace

HugePages::HugePages(std::span<std::byte> memory) : credit_(kInitialCredit) {
  if (memory.size() >= kMinMemory) {
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    begin_ = (address + kHugePage - 1) / kHugePage * kHugePage;
    pages_ = std::vector<std::atomic<bool>>((address + memory.size() - begin_) / kHugePage);
  }
}

void HugePages::prepare(std::span<std::byte> part) {
  const auto address = reinterpret_cast<uintptr_t>(part.data());
  const size_t end = std::min(pages_.size(), pages_before(address + part.size(), begin_));
  for (size_t i = address <= begin_ ? 0 : (address - begin_) / kHugePage; i < end; ++i) {
    if (credit_.load(std::memory_order_relaxed) < 0) {
      return;
    }
    if (!pages_[i].exchange(true, std::memory_order_relaxed)) {
      const uintptr_t page = begin_ + i * kHugePage;
      // Touched in the part: what else lies in the page may be another thread's.
      const int64_t saved = try_page(page, reinterpret_cast<volatile std::byte*>(std::max(page, address)));
      credit_ = std::min(credit_ + saved, kMaxCredit);
    }
  }
}

}  // namespace torch_safetensors::io
