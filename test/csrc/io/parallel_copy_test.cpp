#include "io/parallel_copy.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "io/child.h"
#include "io/faults.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// Copies stretches of the given sizes, one after the other, and returns all that was written.
std::string copy_consecutive(std::string_view from, const std::vector<size_t>& sizes) {
  std::string into(from.size(), '\0');
  std::vector<CopyRange> ranges;
  size_t offset = 0;
  for (const size_t size : sizes) {
    ranges.push_back({readable(from.substr(offset, size)), writable(into).data() + offset});
    offset += size;
  }
  copy_ranges(ranges);
  into.resize(offset);
  return into;
}

TEST(CopyRanges, CopiesNothing) {
  EXPECT_NO_THROW(copy_ranges({}));
  const std::vector<CopyRange> empty(3, CopyRange{{}, nullptr});
  EXPECT_NO_THROW(copy_ranges(empty));
}

TEST(CopyRanges, CopiesEverySize) {
  const std::string from = pattern(21 * kMiB + 17);
  for (const size_t size :
       {size_t{1}, 2 * kMiB, 4 * kMiB - 1, 4 * kMiB, 4 * kMiB + 1, 8 * kMiB, 21 * kMiB + 17}) {
    ASSERT_TRUE(copy_consecutive(from, {size}) == from.substr(0, size)) << size;
  }
}

TEST(CopyRanges, CopiesLargeAndSmallAndEmptyRanges) {
  const std::string from = pattern(23 * kMiB + 13);
  const std::vector<size_t> sizes{0, 1, 0, 9 * kMiB + 3, 2, 0, 1 * kMiB, 1 * kMiB, 7, 12 * kMiB, 0};
  EXPECT_TRUE(copy_consecutive(from, sizes) == from);
}

TEST(CopyRanges, CopiesAHundredThousandTinyRanges) {
  const std::string from = pattern(100'000 * 60);  // above the limit for threads
  EXPECT_TRUE(copy_consecutive(from, std::vector<size_t>(100'000, 60)) == from);
  EXPECT_TRUE(copy_consecutive(from, std::vector<size_t>(100'000, 16)) == from.substr(0, 1'600'000));
}

TEST(CopyRanges, CopiesFromAndToAnywhere) {
  std::mt19937 random(1);
  const std::string from = pattern(12 * kMiB);
  std::vector<std::string> results(2000);
  std::vector<std::string> expected;
  expected.reserve(results.size());  // a short string's bytes move with it
  std::vector<CopyRange> ranges;
  for (std::string& result : results) {
    result.resize(random() % 9000);
    expected.push_back(from.substr(random() % (from.size() - result.size()), result.size()));
    ranges.push_back({readable(expected.back()), writable(result).data()});
  }
  copy_ranges(ranges);
  EXPECT_TRUE(results == expected);
}

TEST(CopyRanges, FillsFreshMemoryAtAnyAddress) {
  const FaultsGuard guard;
  const std::string from = pattern(25 * kMiB);
  for (const size_t shift : {size_t{0}, size_t{16}, kMiB + 1}) {
    const std::unique_ptr<std::byte[]> memory(new std::byte[27 * kMiB]);
    const std::span<std::byte> into(memory.get() + shift, from.size());
    HugePages pages(into);
    const auto half = from.size() / 2;
    copy_ranges(std::vector<CopyRange>{{readable(from).first(half), into.data()},
                                       {readable(from).subspan(half), into.data() + half}},
                &pages);
    EXPECT_EQ(std::memcmp(into.data(), from.data(), from.size()), 0) << shift;
  }
#if defined(__linux__)
  EXPECT_GE(faults.madvises, 3);
#endif
}

TEST(CopyRanges, CopiesOnManyThreadsAtOnce) {
  const std::string from = pattern(20 * kMiB);
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] { good += copy_consecutive(from, {from.size()}) == from; });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(good, 6);
}

TEST(CopyRanges, WorksInAForkedChild) {
  const std::string from = pattern(20 * kMiB);
  const auto copy = [&] {
    if (copy_consecutive(from, {from.size()}) != from) {
      throw std::runtime_error("copied something else");
    }
  };
  copy();
  EXPECT_EQ(run_in_child(copy), 0);
}

}  // namespace
}  // namespace torch_safetensors::io
