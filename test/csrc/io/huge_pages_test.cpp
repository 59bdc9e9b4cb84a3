#include "io/huge_pages.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>
#include <thread>
#include <vector>

#include "io/faults.h"

namespace torch_safetensors::io {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// What a system costs that moves pages about for 60 ms before it gives one.
void work_for_60_ms() {
  for (const std::clock_t begin = std::clock(); std::clock() - begin < CLOCKS_PER_SEC * 6 / 100;) {
  }
}

class HugePagesTest : public ::testing::Test {
 protected:
  /// Touched before, so that the pages cost nothing but what a test has them cost.
  HugePagesTest() { std::memset(memory_.get(), 0, 42 * kMiB); }

  /// What there is of `all` from so many MiB on, so many MiB long.
  std::span<std::byte> part(size_t begin, size_t size) { return all_.subspan(begin * kMiB, size * kMiB); }

  FaultsGuard guard_;
  std::unique_ptr<std::byte[]> memory_{new std::byte[42 * kMiB]};
  /// Begins and ends in the middle of a huge page.
  std::span<std::byte> all_{
      memory_.get() + 3 * kMiB - reinterpret_cast<uintptr_t>(memory_.get()) % (2 * kMiB), 38 * kMiB};
};

#if defined(__linux__)
TEST_F(HugePagesTest, AsksOnceForEachHugePageThatIsWholeInTheMemory) {
  HugePages pages(all_);
  pages.prepare(part(0, 38));
  EXPECT_EQ(faults.madvises, 18);
  pages.prepare(part(0, 38));
  EXPECT_EQ(faults.madvises, 18);
}

TEST_F(HugePagesTest, AsksForThePagesThatAPartLiesInAndNoOthers) {
  HugePages pages(all_);
  pages.prepare(part(0, 1));
  pages.prepare(part(37, 1));
  pages.prepare(part(5, 0));
  EXPECT_EQ(faults.madvises, 0);
  pages.prepare(part(2, 1).first(1));
  EXPECT_EQ(faults.madvises, 1);
  pages.prepare(part(1, 2));
  EXPECT_EQ(faults.madvises, 1);
  pages.prepare(part(2, 2));
  EXPECT_EQ(faults.madvises, 2);
}

TEST_F(HugePagesTest, StopsWhenTheyCostTooMuch) {
  HugePages pages(all_);
  faults.before_madvise = work_for_60_ms;
  pages.prepare(part(0, 38));
  EXPECT_EQ(faults.madvises, 1);
  faults.before_madvise = nullptr;
  pages.prepare(part(0, 38));
  EXPECT_EQ(faults.madvises, 1);
}

TEST_F(HugePagesTest, StopsWhenTheSystemIsStuck) {
  HugePages pages(all_);
  faults.before_madvise = [] { std::this_thread::sleep_for(std::chrono::seconds(1)); };
  pages.prepare(part(0, 38));
  EXPECT_EQ(faults.madvises, 1);
}

TEST_F(HugePagesTest, StopsWhereThereAreNone) {
  HugePages pages(all_);
  faults.madvise = EINVAL;
  pages.prepare(part(0, 38));
  EXPECT_EQ(faults.madvises, 1);
}
#endif

TEST_F(HugePagesTest, LeavesSmallMemoryAlone) {
  HugePages pages(part(0, 7));
  pages.prepare(part(0, 7));
  HugePages none{std::span<std::byte>()};
  none.prepare({});
  EXPECT_EQ(faults.madvises, 0);
}

#if defined(__linux__)
TEST_F(HugePagesTest, KnowsTheMemoriesApart) {
  const std::span<std::byte> memories[] = {part(20, 9), part(0, 9), part(31, 1), part(10, 9)};
  HugePages pages(memories);
  pages.prepare(part(31, 1));
  pages.prepare(part(0, 1));
  EXPECT_EQ(faults.madvises, 0);
  pages.prepare(part(20, 9));
  EXPECT_EQ(faults.madvises, 4);
  pages.prepare(part(10, 9));
  EXPECT_EQ(faults.madvises, 8);
  pages.prepare(part(0, 9));
  EXPECT_EQ(faults.madvises, 12);
}

TEST_F(HugePagesTest, TakesNeighboursForOneMemory) {
  // As malloc places them, with a few bytes between, and not in the order of their addresses.
  const std::span<std::byte> memories[] = {part(6, 4).subspan(64), part(0, 3), part(3, 3).subspan(16)};
  HugePages pages(memories);
  for (const auto memory : memories) {
    pages.prepare(memory);
  }
  EXPECT_EQ(faults.madvises, 4);  // all that begin and end in the ten MiB
}
#endif

TEST_F(HugePagesTest, WritesToNothingButThePart) {
  std::memset(all_.data(), 1, all_.size());
  HugePages(all_).prepare(part(9, 3));
  const std::vector<std::byte> untouched(26 * kMiB, std::byte{1});
  EXPECT_EQ(std::memcmp(part(0, 9).data(), untouched.data(), 9 * kMiB), 0);
  EXPECT_EQ(std::memcmp(part(12, 26).data(), untouched.data(), 26 * kMiB), 0);
}

}  // namespace
}  // namespace torch_safetensors::io
