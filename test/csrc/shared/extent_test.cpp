#include "shared/extent.h"

#include <gtest/gtest.h>

#include <vector>

namespace torch_safetensors::shared {
namespace {

using Numbers = std::vector<int64_t>;

constexpr int64_t kMost = INT64_MAX;

std::optional<Extent> extent(const Numbers& sizes, const Numbers& strides, int64_t offset,
                             uint64_t item_size = 4) {
  return extent_of({sizes, strides, offset, item_size});
}

std::string fault(const Numbers& sizes, const Numbers& strides, int64_t offset, uint64_t nbytes,
                  bool has_data = true) {
  return memory_fault({sizes, strides, offset, 4}, {nbytes, has_data}).value_or("");
}

TEST(Extent, ReachesFromTheFirstElementToTheLast) {
  const auto is = [](std::optional<Extent> found, uint64_t begin, uint64_t end) {
    return found && found->begin == begin && found->end == end;
  };
  EXPECT_TRUE(is(extent({}, {}, 0), 0, 4));
  EXPECT_TRUE(is(extent({3}, {1}, 2), 8, 20));
  EXPECT_TRUE(is(extent({2, 3}, {5, 2}, 1), 4, 44));
  EXPECT_TRUE(is(extent({1000}, {0}, 0), 0, 4));
  EXPECT_TRUE(is(extent({1, 2}, {kMost, 1}, 0), 0, 8));
  EXPECT_TRUE(is(extent({5}, {1}, 0, 16), 0, 80));
}

TEST(Extent, WithoutElementsIsNothingWhereverItLies) {
  for (const int64_t offset : {int64_t{0}, kMost, int64_t{-1}}) {
    const auto found = extent({3, 0, kMost}, {kMost, kMost, kMost}, offset);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->end, 0U);
  }
}

TEST(Extent, NoStorageHoldsWhatDoesNotFitInNumbers) {
  EXPECT_FALSE(extent({3}, {kMost}, 0));
  EXPECT_FALSE(extent({kMost}, {1}, kMost, 8));
  EXPECT_FALSE(extent({2}, {kMost / 2}, 0, 8));
  EXPECT_FALSE(extent({2, 2, 2}, {kMost, kMost, kMost}, 0, 1));
  EXPECT_FALSE(extent({1}, {1}, kMost, 16));
  EXPECT_FALSE(extent({1}, {1}, -1));
  EXPECT_FALSE(extent({2}, {-1}, 5));
  EXPECT_FALSE(extent({-1}, {1}, 0));
  EXPECT_FALSE(extent({1}, {}, 0));
}

TEST(MemoryFault, IsWhatDoesNotFit) {
  EXPECT_EQ(fault({2, 3}, {3, 1}, 0, 24), "");
  EXPECT_EQ(fault({2, 3}, {3, 1}, 1, 28), "");
  EXPECT_EQ(fault({0}, {1}, 100, 0, false), "");
  const std::string hint =
      "; if its memory was freed or moved elsewhere, as FSDP and offloading do, gather or materialize it "
      "first";
  EXPECT_EQ(
      fault({2, 3}, {3, 1}, 1, 27),
      "needs 28 bytes of its storage, which has 27 (storage offset 1, shape [2, 3], strides [3, 1])" + hint);
  EXPECT_EQ(fault({}, {}, 0, 4, false),
            "needs 4 bytes of its storage, which has no data, only a size of 4 (storage offset 0, shape [], "
            "strides "
            "[])" +
                hint);
  EXPECT_EQ(fault({3}, {kMost}, 0, 4),
            "lies outside of its storage, which has 4 (storage offset 0, shape [3], strides "
            "[9223372036854775807])" +
                hint);
}

}  // namespace
}  // namespace torch_safetensors::shared
