#include "io/will_need.h"

#if defined(__linux__)
#include <gtest/gtest.h>

#include "io/page_cache.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

/// More than the system reads ahead for one call.
constexpr size_t kPart = 32 << 20;

TEST(WillNeedTest, BringsThatPartIntoMemoryAndNoOther) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", std::string(4 * kPart, 'x')));
  evict(file);
  will_need(file, kPart, kPart);
  for (size_t offset = kPart; offset < 2 * kPart; offset += kPart / 64) {
    ASSERT_TRUE(happens([&] { return is_in_memory(file, offset); })) << offset;
  }
  EXPECT_FALSE(is_in_memory(file, 3 * kPart));
}

TEST(WillNeedTest, NothingOfNothing) {
  const TestDirectory directory;
  const File file(write_file(directory / "f", std::string(8 * kPart, 'x')));
  evict(file);
  will_need(file, 0, 0);
  EXPECT_FALSE(is_in_memory(file, kPart / 2));
  will_need(file, 2 * kPart, kPart);  // which lies behind the end
}

}  // namespace
}  // namespace torch_safetensors::io
#endif
