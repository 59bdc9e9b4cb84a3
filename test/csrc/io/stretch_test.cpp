#include "io/stretch.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

TEST(Stretch, OfNothingIsEmpty) {
  EXPECT_EQ(Stretch({}).size(), 0U);
  Stretch({}).copy_to({}, 0);
  const std::vector<std::span<const std::byte>> empty(3);
  EXPECT_EQ(Stretch(empty).size(), 0U);
}

TEST(Stretch, GivesEveryPartOfIt) {
  const std::vector<std::span<const std::byte>> pieces{{}, readable("ab"),    {}, {}, readable("c"),
                                                       {}, readable("defgh"), {}};
  const Stretch stretch(pieces);
  ASSERT_EQ(stretch.size(), 8U);
  for (size_t begin = 0; begin <= 8; ++begin) {
    for (size_t size = 0; size <= 8 - begin; ++size) {
      std::string part(size, '?');
      stretch.copy_to(writable(part), begin);
      EXPECT_EQ(part, std::string("abcdefgh").substr(begin, size));
    }
  }
}

}  // namespace
}  // namespace torch_safetensors::io
