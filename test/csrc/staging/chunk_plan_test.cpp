#include "staging/chunk_plan.h"

#include <gtest/gtest.h>

#include <random>

namespace torch_safetensors::staging {
namespace {

std::vector<Item> back_to_back(std::initializer_list<size_t> sizes) {
  std::vector<Item> items;
  uint64_t source = 0;
  for (const size_t size : sizes) {
    items.push_back({source, size});
    source += size;
  }
  return items;
}

TEST(ChunkPlan, CutsLargeItemsIntoBlocks) {
  const ChunkPlan plan = plan_chunks(back_to_back({2500, 1000}), {1000, 100});
  ASSERT_EQ(plan.units.size(), 2);
  EXPECT_EQ(plan.units[0].chunk_count, 3);
  EXPECT_EQ(plan.units[1].chunk_count, 1);
  ASSERT_EQ(plan.chunks.size(), 4);
  EXPECT_EQ(plan.chunks[2].nbytes, 500);
  EXPECT_EQ(plan.parts[2].item_offset, 2000);
}

TEST(ChunkPlan, PacksSmallItemsAcrossLargeOnes) {
  const ChunkPlan plan = plan_chunks(back_to_back({10, 5000, 20, 5000, 100}), {1000, 100});
  ASSERT_EQ(plan.units.size(), 4);
  EXPECT_EQ(plan.units[0].chunk_count, 1);
  EXPECT_EQ(plan.units[0].nbytes, kAlignment + 20);
  const auto parts = plan.parts_of(plan.units[0]);
  ASSERT_EQ(parts.size(), 2);
  EXPECT_EQ(parts[1].item, 2);
  EXPECT_EQ(parts[1].block_offset, kAlignment);
  EXPECT_EQ(plan.parts_of(plan.units[3]).front().item, 4);  // not below the limit
}

TEST(ChunkPlan, SharedUnitsFitIntoABlock) {
  const ChunkPlan plan = plan_chunks(back_to_back({90, 90, 90, 90}), {256, 100});
  ASSERT_EQ(plan.units.size(), 2);
  EXPECT_EQ(plan.units[0].nbytes, 128 + 90);
  EXPECT_EQ(plan.parts_of(plan.units[1]).front().item, 2);
}

TEST(ChunkPlan, SharesNothingWhereThatIsNotWanted) {
  EXPECT_EQ(plan_chunks(back_to_back({1, 1, 1}), {4096, 0}).units.size(), 3);
}

TEST(ChunkPlan, EmptyItemsTravelNowhere) {
  const ChunkPlan plan = plan_chunks(back_to_back({0, 5, 0}), {4096, 100});
  ASSERT_EQ(plan.parts.size(), 1);
  EXPECT_EQ(plan.parts[0].item, 1);
  EXPECT_TRUE(plan_chunks({}, {4096, 100}).units.empty());
}

TEST(ChunkPlan, CarriesEveryByteOnceWhateverTheSizes) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const PlanLimits limits{64 + random() % 5000, random() % 3000};
    std::vector<Item> items;
    uint64_t source = random() % 100;
    for (size_t count = random() % 60; count > 0; --count) {
      items.push_back({source, random() % (random() % 4 == 0 ? 20000 : 300)});
      source += items.back().nbytes + random() % 3 * 17;
    }
    const ChunkPlan plan = plan_chunks(items, limits);
    std::vector<size_t> done(items.size(), 0);
    for (size_t unit = 0; unit < plan.units.size(); ++unit) {
      const auto [nbytes, first, count] = plan.units[unit];
      ASSERT_GE(count, 1);
      for (size_t chunk = first; chunk < first + count; ++chunk) {
        ASSERT_EQ(plan.chunks[chunk].unit, unit);
        ASSERT_LE(plan.chunks[chunk].nbytes, limits.block_size);
        size_t end = 0;
        for (const Part& part : plan.parts_of(plan.chunks[chunk])) {
          ASSERT_EQ(part.item_offset, done[part.item]);
          ASSERT_GE(part.block_offset, end);
          ASSERT_EQ(part.block_offset % kAlignment, 0);
          ASSERT_GT(part.nbytes, 0);
          ASSERT_TRUE(count == 1 || plan.chunks[chunk].part_count == 1);
          done[part.item] += part.nbytes;
          end = part.block_offset + part.nbytes;
        }
        ASSERT_EQ(end, plan.chunks[chunk].nbytes);
      }
    }
    for (size_t item = 0; item < items.size(); ++item) {
      ASSERT_EQ(done[item], items[item].nbytes);
    }
  }
}

}  // namespace
}  // namespace torch_safetensors::staging
