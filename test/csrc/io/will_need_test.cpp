#include "io/will_need.h"

#if defined(__linux__)
#include <gtest/gtest.h>

#include "io/page_cache.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

constexpr size_t kPart = 4 << 20;

TEST(WillNeedTest, BringsThatPartIntoMemoryAndNoOther) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", std::string(8 * kPart, 'x')));
  evict(file);
  will_need(file, 2 * kPart, kPart);
  for (size_t offset = 2 * kPart; offset < 3 * kPart; offset += kPart / 16) {
    EXPECT_TRUE(happens([&] { return is_in_memory(file, offset); })) << offset;
  }
  EXPECT_FALSE(is_in_memory(file, 5 * kPart));
}

TEST(WillNeedTest, NothingOfNothing) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", std::string(8 * kPart, 'x')));
  evict(file);
  will_need(file, 0, 0);
  EXPECT_FALSE(is_in_memory(file, 7 * kPart));
  will_need(file, 100 * kPart, kPart);  // which lies behind the end
}

}  // namespace
}  // namespace torch_safetensors::io
#endif
