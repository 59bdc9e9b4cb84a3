#include "io/mapping.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

std::string_view text_of(const Mapping& mapping) {
  return {reinterpret_cast<const char*>(mapping.bytes().data()), mapping.bytes().size()};
}

TEST(Mapping, HoldsTheFileAlsoWhenThatIsClosed) {
  const TestDirectory directory;
  const std::string contents = pattern(100'000);
  std::optional<File> file(write_file(directory / "f", contents));
  const Mapping mapping(*file);
  file.reset();
  ::unlink((directory / "f").c_str());
  EXPECT_EQ(text_of(mapping), contents);
}

TEST(Mapping, KeepsWritesFromTheFile) {
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", pattern(10'000));
  const Mapping written{File(path)};
  const Mapping other{File(path)};
  std::memset(written.bytes().data(), 'x', 10'000);
  EXPECT_EQ(read_file(path), pattern(10'000));
  EXPECT_EQ(text_of(other), pattern(10'000));
}

TEST(Mapping, KeepsWritesOfAForkedChildFromTheParent) {
  const TestDirectory directory;
  const Mapping mapping{File(write_file(directory / "f", "abc"))};
  EXPECT_EQ(run_in_child([&] { mapping.bytes()[0] = std::byte{'x'}; }), 0);
  EXPECT_EQ(text_of(mapping), "abc");
}

TEST(Mapping, OfAPartHasItsBytesAndPagesOfItsOwn) {
  const TestDirectory directory;
  const std::string contents = pattern(100'000);
  const File file(write_file(directory / "f", contents));
  const Mapping whole(file);
  for (const auto& [begin, size] : {std::pair<size_t, size_t>{0, 5}, {1, 40'000}, {8192, 1}, {99'999, 1}}) {
    const Mapping part(file, begin, size);
    EXPECT_EQ(text_of(part), contents.substr(begin, size));
    std::memset(part.bytes().data(), 'x', size);
  }
  EXPECT_EQ(text_of(whole), contents);
  EXPECT_TRUE(Mapping(file, 7, 0).bytes().empty());
}

TEST(Mapping, OfAnEmptyFileIsEmpty) {
  const TestDirectory directory;
  EXPECT_TRUE(Mapping{File(write_file(directory / "f", ""))}.bytes().empty());
}

TEST(Mapping, MayBeLargerThanTheMemory) {
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", "");
  constexpr off_t kSize = off_t{1} << 38;
  ASSERT_EQ(::truncate(path.c_str(), kSize), 0);
  const Mapping mapping{File(path)};
  EXPECT_EQ(mapping.bytes().size(), static_cast<size_t>(kSize));
  EXPECT_EQ(mapping.bytes().back(), std::byte{0});
}

#if defined(__linux__)
TEST(Mapping, ReportsTheErrorOfTheSystem) {
  // A file that has a size but cannot be mapped.
  const std::string path = "/sys/kernel/mm/transparent_hugepage/enabled";
  if (::access(path.c_str(), R_OK) != 0) {
    GTEST_SKIP() << "no " << path;
  }
  expect_os_error(ENODEV, "[Errno 19] No such device: '" + path + "'", [&] { Mapping mapping{File(path)}; });
}
#endif

}  // namespace
}  // namespace torch_safetensors::io
