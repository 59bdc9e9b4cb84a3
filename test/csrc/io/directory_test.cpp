#include "io/directory.h"

#include <gtest/gtest.h>

#include "io/expect_os_error.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

TEST(ListDirectory, SortsTheNamesOfAllThatIsThere) {
  const TestDirectory directory;
  EXPECT_EQ(list_directory(directory.path()), std::vector<std::string>());
  for (const char* name : {"b", "a.x", ".hidden", "\xFF"}) {
    write_file(directory / name, "");
  }
  std::filesystem::create_directory(directory / "folder");
  EXPECT_EQ(list_directory(directory.path()),
            (std::vector<std::string>{".hidden", "a.x", "b", "folder", "\xFF"}));
}

TEST(ListDirectory, SaysWhatTheSystemSays) {
  const TestDirectory directory;
  const std::string none = directory / "none";
  expect_os_error(ENOENT, "[Errno 2] No such file or directory: '" + none + "'",
                  [&] { list_directory(none); });
  const std::string file = write_file(directory / "file", "");
  expect_os_error(ENOTDIR, "[Errno 20] Not a directory: '" + file + "'", [&] { list_directory(file); });
}

}  // namespace
}  // namespace torch_safetensors::io
