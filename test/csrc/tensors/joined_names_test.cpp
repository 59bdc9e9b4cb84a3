#include "tensors/joined_names.h"

#include <gtest/gtest.h>

namespace torch_safetensors::tensors {
namespace {

using Names = std::vector<std::string>;

/// Seventeen names are joined, sixteen are not.
Names numbered(size_t count, const std::string& suffix) {
  Names names;
  for (size_t i = 0; i < count; ++i) {
    names.push_back(std::to_string(i) + suffix);
  }
  return names;
}

JoinedNames join(const Names& names) { return join_names({names.begin(), names.end()}); }

TEST(JoinNames, LeavesAFewAlone) {
  EXPECT_EQ(join({}), JoinedNames(Names(), std::nullopt));
  EXPECT_EQ(join(numbered(16, "a")), JoinedNames(numbered(16, "a"), std::nullopt));
}

TEST(JoinNames, JoinsMany) {
  const auto [text, separator] = join(numbered(17, ""));
  EXPECT_EQ(separator, "\n");
  EXPECT_EQ(text, Names{"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16"});
}

TEST(JoinNames, TakesASeparatorThatNoNameHas) {
  Names names = numbered(17, "");
  names[16] += '\n';
  EXPECT_EQ(std::get<1>(join(names)), std::string(1, '\0'));
  names[0] += '\0';
  EXPECT_EQ(std::get<1>(join(names)), "\x1e");
}

TEST(JoinNames, ListsThemWhereNoneIsFree) {
  const Names names = numbered(17, std::string("\n\0\x1e\x1f\x1d\x1c", 6));
  EXPECT_EQ(join(names), JoinedNames(names, std::nullopt));
}

}  // namespace
}  // namespace torch_safetensors::tensors
