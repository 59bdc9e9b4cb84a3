#include "format/fixed_buffer.h"

#include <gtest/gtest.h>

#include <string_view>

namespace torch_safetensors::format {
namespace {

std::string_view text_of(const FixedBuffer<char>& buffer) {
  return {buffer.values().data(), buffer.values().size()};
}

TEST(FixedBuffer, KeepsWhatIsAddedWhereItIs) {
  FixedBuffer<char> buffer(5);
  const std::span<const char> first = buffer.append(std::string_view("ab"));
  buffer.push_back('c');
  const std::span<const char> second = buffer.append(std::string_view("de"));
  EXPECT_EQ(text_of(buffer), "abcde");
  EXPECT_EQ(first.data(), buffer.values().data());
  EXPECT_EQ(std::string_view(second.data(), second.size()), "de");
  EXPECT_EQ(buffer.end(), second.data() + 2);
}

TEST(FixedBuffer, LeavesViewsValidWhenItIsMoved) {
  FixedBuffer<char> buffer(2);
  const std::span<const char> view = buffer.append(std::string_view("ab"));
  FixedBuffer<char> moved = std::move(buffer);
  buffer = FixedBuffer<char>(1);
  buffer.push_back('x');
  EXPECT_EQ(view.data(), moved.values().data());
  EXPECT_EQ(text_of(moved), "ab");
}

TEST(FixedBuffer, NeverGrows) {
  FixedBuffer<char> buffer(2);
  EXPECT_THROW(buffer.append(std::string_view("abc")), std::length_error);
  buffer.append(std::string_view("ab"));
  EXPECT_THROW(buffer.push_back('c'), std::length_error);
  EXPECT_EQ(buffer.append({}).size(), 0u);
  EXPECT_THROW(FixedBuffer<char>().push_back('a'), std::length_error);
  EXPECT_EQ(text_of(buffer), "ab");
}

}  // namespace
}  // namespace torch_safetensors::format
