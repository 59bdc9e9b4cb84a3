#include "io/read_ahead.h"

#include <gtest/gtest.h>

#if defined(__linux__)
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "io/child.h"
#include "io/page_cache.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

constexpr size_t kSize = 64 << 20;

size_t threads() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                       std::filesystem::directory_iterator());
}

class ReadAheadTest : public ::testing::Test {
 protected:
  /// The thread sanitizer starts a thread of its own with the first of the program.
  ReadAheadTest() {
    std::thread([] {}).join();
  }

  using Files = std::vector<std::shared_ptr<const SteadyFile>>;

  std::string make(size_t size) { return write_file(directory_ / "f", std::string(size, 'x')); }

  Files steady() const { return {std::make_shared<const SteadyFile>(File(directory_ / "f"))}; }

  TestDirectory directory_;
};

TEST_F(ReadAheadTest, BringsAFileIntoMemory) {
  const File file(make(kSize));
  const size_t before = threads();
  const size_t descriptors = open_descriptors();
  evict(file);
  {
    const ReadAhead ahead(steady());
    for (size_t offset = 0; offset < kSize; offset += kSize / 64) {
      ASSERT_TRUE(happens([&] { return is_in_memory(file, offset); })) << offset;
    }
  }
  EXPECT_TRUE(happens([&] { return threads() == before && open_descriptors() == descriptors; }));
}

TEST_F(ReadAheadTest, LeavesAFileInMemoryAlone) {
  const File file(make(kSize));
  const size_t before = threads();
  const ReadAhead ahead(steady());
  EXPECT_EQ(threads(), before);
}

TEST_F(ReadAheadTest, LeavesASmallFileAlone) {
  const File file(make(1 << 20));
  evict(file);
  const size_t before = threads();
  const ReadAhead ahead(steady());
  EXPECT_EQ(threads(), before);
}

TEST_F(ReadAheadTest, EndsWithItsOwner) {
  const File file(make(4 * kSize));
  evict(file);
  const size_t before = threads();
  {
    const ReadAhead ahead(steady());
  }
  EXPECT_TRUE(happens([&] { return threads() == before; }));
  EXPECT_FALSE(is_in_memory(file, 2 * kSize));  // where nobody has looked: that alone has a file read there
}

TEST_F(ReadAheadTest, OutlivesTheFileAndAFork) {
  std::optional<File> file(make(kSize));
  evict(*file);
  auto ahead = std::make_unique<ReadAhead>(steady());
  file.reset();
  EXPECT_EQ(run_in_child([&] { ahead.reset(); }), 0);
  const File again(directory_ / "f");
  EXPECT_TRUE(happens([&] { return is_in_memory(again, kSize - 1); }));
}

}  // namespace
}  // namespace torch_safetensors::io
#endif
