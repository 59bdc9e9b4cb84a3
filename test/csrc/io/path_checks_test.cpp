#include "io/path_checks.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "io/expect_os_error.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

struct stat status_of(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return status;
}

TEST(RequireNoNul, RefusesOne) {
  EXPECT_NO_THROW(require_no_nul("a"));
  expect_os_error(EINVAL, "[Errno 22] embedded null byte: 'a\\x00b'",
                  [] { require_no_nul(std::string("a\0b", 3)); });
}

TEST(RequireRegular, RefusesEverythingElse) {
  const TestDirectory directory;
  EXPECT_NO_THROW(require_regular(status_of(write_file(directory / "file", "")), "file"));
  expect_os_error(EISDIR, "[Errno 21] Is a directory: 'd'",
                  [&] { require_regular(status_of(directory.path()), "d"); });
  expect_os_error(EINVAL, "[Errno 22] not a regular file: 'n'",
                  [&] { require_regular(status_of("/dev/null"), "n"); });
}

TEST(IsSameFile, ComparesDeviceAndNumber) {
  const TestDirectory directory;
  const std::string a = write_file(directory / "a", "x");
  const std::string b = write_file(directory / "b", "x");
  ASSERT_EQ(::link(a.c_str(), (directory / "hard").c_str()), 0);
  EXPECT_TRUE(is_same_file(status_of(a), status_of(directory / "hard")));
  EXPECT_FALSE(is_same_file(status_of(a), status_of(b)));
}

}  // namespace
}  // namespace torch_safetensors::io
