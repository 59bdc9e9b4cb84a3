#include "format/metadata.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

namespace torch_safetensors::format {
namespace {

using std::string_view_literals::operator""sv;

std::vector<Metadata::Pair> pairs_of(const Metadata& metadata) {
  std::vector<Metadata::Pair> result;
  for (const auto& pair : metadata.pairs()) {
    result.push_back(pair);
  }
  return result;
}

TEST(Metadata, IsSortedByTheBytesOfItsKeys) {
  const Metadata metadata{{"b", "1"},          {"\u00E9", "2"},    {"", "3"},         {"a\0"sv, "4"},
                          {"a", "5"},          {"aaaaaaaab", "6"}, {"aaaaaaaa", "7"}, {"aaaaaaa\0"sv, "8"},
                          {"aaaaaaaaaz", "9"}, {"aaaaaaa", "10"}};
  EXPECT_EQ(pairs_of(metadata), (std::vector<Metadata::Pair>{{"", "3"},
                                                             {"a", "5"},
                                                             {"a\0"sv, "4"},
                                                             {"aaaaaaa", "10"},
                                                             {"aaaaaaa\0"sv, "8"},
                                                             {"aaaaaaaa", "7"},
                                                             {"aaaaaaaaaz", "9"},
                                                             {"aaaaaaaab", "6"},
                                                             {"b", "1"},
                                                             {"\u00E9", "2"}}));
}

TEST(Metadata, KeepsTheLastOfEqualKeys) {
  const Metadata metadata{{"k", "first"}, {"a", ""}, {"k", "second"}, {"k", "third"}};
  EXPECT_EQ(pairs_of(metadata), (std::vector<Metadata::Pair>{{"a", ""}, {"k", "third"}}));
}

TEST(Metadata, KeepsTheLastOfEmptyKeys) {
  EXPECT_EQ(pairs_of({{"", ""}, {"", "second"}, {"a", ""}}),
            (std::vector<Metadata::Pair>{{"", "second"}, {"a", ""}}));
  EXPECT_EQ(pairs_of({{"", "first"}, {"", ""}, {"", ""}}), (std::vector<Metadata::Pair>{{"", ""}}));
}

TEST(Metadata, IsEqualToWhatHoldsTheSamePairs) {
  EXPECT_EQ((Metadata{{"a", "1"}, {"b", "2"}}), (Metadata{{"b", "2"}, {"a", "0"}, {"a", "1"}}));
  EXPECT_NE((Metadata{{"a", "1"}}), (Metadata{{"a", "2"}}));
  EXPECT_NE((Metadata{{"a", "1"}}), (Metadata{{"b", "1"}}));
  EXPECT_NE((Metadata{{"a", "1"}}), Metadata());
  EXPECT_NE((Metadata{{"ab", ""}}), (Metadata{{"a", "b"}}));
}

TEST(Metadata, MayBeEmpty) {
  EXPECT_TRUE(Metadata().empty());
  EXPECT_EQ(Metadata().size(), 0u);
  EXPECT_EQ((Metadata{{"", ""}}).size(), 1u);
}

TEST(Metadata, StaysValidWhenItIsCopiedAndMoved) {
  Metadata metadata{{"k", "v"}};
  const Metadata copy = metadata;
  const Metadata moved = std::move(metadata);
  metadata = Metadata();
  EXPECT_EQ(copy, moved);
  EXPECT_EQ(copy[0], Metadata::Pair("k", "v"));
}

TEST(MetadataBuilder, IsTheMapOfWhatWasAdded) {
  std::mt19937_64 random(20240607);
  MetadataBuilder builder;
  std::map<std::string, std::string> expected;
  for (int i = 0; i < 50'000; ++i) {
    // So that keys come again, and that many have their first eight bytes in common.
    std::string key = (random() % 2 == 0 ? "" : "a long key ") + std::to_string(random() % 20'000);
    const std::string value = std::to_string(i);
    builder.add(key, value);
    expected.insert_or_assign(std::move(key), value);
  }
  const Metadata metadata = std::move(builder).build();
  ASSERT_EQ(metadata.size(), expected.size());
  size_t at = 0;
  for (const auto& [key, value] : expected) {
    EXPECT_EQ(metadata[at++], Metadata::Pair(key, value));
  }
}

TEST(MetadataBuilder, IsTheMapOfMillionsThatWereAdded) {
  MetadataBuilder builder;
  for (size_t i = 0; i < 2'500'000; ++i) {
    builder.add(std::to_string(i * 7919 % 1'500'000), std::to_string(i));
  }
  const Metadata metadata = std::move(builder).build();
  ASSERT_EQ(metadata.size(), 1'500'000u);
  EXPECT_TRUE(std::ranges::is_sorted(metadata.pairs(), {}, [](const auto& pair) { return pair.first; }));
  EXPECT_EQ(metadata[0], Metadata::Pair("0", "1500000"));
}

}  // namespace
}  // namespace torch_safetensors::format
