#include "format/name_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>

namespace torch_safetensors::format {
namespace {

using std::string_literals::operator""s;

std::vector<std::string_view> views_of(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

/// Names made of few different pieces: they have much in common, and end within each other.
std::vector<std::string> random_names(std::mt19937_64& random, size_t count, size_t pieces) {
  const std::vector<std::string> kPieces{
      std::string(1, '\0'), "a", "b", "\xC3\xA9", "layers.", "0123456", "01234567", std::string(40, 'x')};
  std::vector<std::string> names(count);
  for (std::string& name : names) {
    for (size_t i = random() % (pieces + 1); i > 0; --i) {
      name += kPieces[random() % kPieces.size()];
    }
  }
  return names;
}

void expect_sorted(const std::vector<std::string>& names) {
  const std::vector<std::string_view> views = views_of(names);
  const NameOrder order = order_names(views);
  ASSERT_EQ(order.indices.size(), names.size());
  std::vector<bool> seen(names.size());
  std::optional<std::string_view> twin;
  for (size_t i = 0; i < names.size(); ++i) {
    ASSERT_FALSE(seen.at(order.indices[i]));
    seen[order.indices[i]] = true;
    if (i > 0) {
      const std::string& before = names[order.indices[i - 1]];
      ASSERT_LE(before, names[order.indices[i]]);
      if (!twin && before == names[order.indices[i]]) {
        twin = before;
      }
    }
  }
  EXPECT_EQ(order.twin, twin);
}

TEST(NameOrder, OfFewNames) {
  EXPECT_TRUE(order_names({}).indices.empty());
  EXPECT_EQ(order_names({}).twin, std::nullopt);
  EXPECT_EQ(order_names(views_of({"b"})).indices, (std::vector<uint32_t>{0}));
  EXPECT_EQ(order_names(views_of({"b", "", "\u00E9", "a"})).indices, (std::vector<uint32_t>{1, 3, 0, 2}));
}

TEST(NameOrder, OfNamesOfManyKindsInAnyNumber) {
  std::mt19937_64 random(20240607);
  for (const size_t count : {2, 3, 16, 17, 18, 40, 300, 3'000}) {
    for (size_t pieces = 1; pieces < 12; ++pieces) {
      std::vector<std::string> names = random_names(random, count, pieces);
      expect_sorted(names);
      // All different.
      const std::set<std::string> different(names.begin(), names.end());
      names.assign(different.begin(), different.end());
      expect_sorted(names);
      std::shuffle(names.begin(), names.end(), random);
      expect_sorted(names);
    }
  }
}

TEST(NameOrder, OfSortedStretches) {
  std::mt19937_64 random(20240607);
  for (size_t stretches = 1; stretches < 12; ++stretches) {
    std::vector<std::string> names;
    for (size_t i = 0; i < stretches; ++i) {
      std::vector<std::string> more = random_names(random, 100, 6);
      std::sort(more.begin(), more.end());
      names.insert(names.end(), more.begin(), more.end());
    }
    expect_sorted(names);
  }
}

TEST(NameOrder, FindsTheFirstTwin) {
  EXPECT_EQ(order_names(views_of({"b", "a", "b", "a"})).twin, "a");
  EXPECT_EQ(order_names(views_of({"a", "a\0"s, "aa"})).twin, std::nullopt);
  EXPECT_EQ(order_names(std::vector<std::string_view>(1000, "a name")).twin, "a name");
  EXPECT_EQ(order_names(std::vector<std::string_view>(1000, "")).twin, "");
}

TEST(NameOrder, OfLongNamesThatDifferAtTheirEnds) {
  // A recursion for each word of what they have in common would take the whole stack.
  std::vector<std::string> names;
  for (int i = 0; i < 40; ++i) {
    names.push_back(std::string(1'000'000, 'a') + std::to_string(i * 7919 % 40));
    names.back()[500'000] = i % 2 == 0 ? 'b' : 'c';
  }
  expect_sorted(names);
}

}  // namespace
}  // namespace torch_safetensors::format
