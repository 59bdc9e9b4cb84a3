#include "io/mapped_here.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>

#include "io/mapping.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

bool is_mapped(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return is_mapped_here(path, status);
}

TEST(IsMappedHere, KnowsAMappedFile) {
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", "abc");
  ASSERT_EQ(::link(path.c_str(), (directory / "hard").c_str()), 0);
  std::optional<Mapping> mapping(std::in_place, File(path));
  EXPECT_TRUE(is_mapped(path));
  EXPECT_TRUE(is_mapped(directory / "hard"));
#if defined(__linux__)
  mapping.reset();
  EXPECT_FALSE(is_mapped(path));
#endif
}

TEST(IsMappedHere, KnowsAMappedFileByItsPathAlone) {
  const TestDirectory directory;
  const std::string path = write_file(directory / "f", "abc");
  const Mapping mapping{File(path)};
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  status.st_ino += 1'000'000'007;  // an overlay may show another number here than in /proc/self/maps
  EXPECT_TRUE(is_mapped_here(path, status));
}

}  // namespace
}  // namespace torch_safetensors::io
