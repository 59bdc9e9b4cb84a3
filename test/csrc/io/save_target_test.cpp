#include "io/save_target.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "io/descriptor.h"
#include "io/expect_os_error.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class FindSaveTarget : public ::testing::Test {
 protected:
  std::string make_link(const std::string& to, const std::string& name) {
    const std::string path = directory_ / name;
    EXPECT_EQ(::symlink(to.c_str(), path.c_str()), 0);
    return path;
  }

  /// The name, of which the folders are made.
  std::string in_cache(const std::string& name) {
    std::filesystem::create_directories(std::filesystem::path(directory_ / name).parent_path());
    return name;
  }

  void expect_refused(int number, const std::string& text, const std::string& path) {
    expect_os_error(number, "[Errno " + std::to_string(number) + "] " + text + ": '" + path + "'",
                    [&] { find_save_target(path); });
  }

  TestDirectory directory_;
};

TEST_F(FindSaveTarget, SplitsThePath) {
  const SaveTarget absolute = find_save_target(directory_ / "new");
  EXPECT_EQ(absolute.path, directory_ / "new");
  EXPECT_EQ(absolute.directory, directory_.path() + "/");
  EXPECT_EQ(absolute.name, "new");
  EXPECT_FALSE(absolute.existing);
  const SaveTarget relative = find_save_target("surely not there");
  EXPECT_EQ(relative.directory, "");
  EXPECT_EQ(relative.name, "surely not there");
}

TEST_F(FindSaveTarget, KnowsAnExistingFile) {
  const SaveTarget target = find_save_target(write_file(directory_ / "old", "abc"));
  ASSERT_TRUE(target.existing);
  EXPECT_EQ(target.existing->st_size, 3);
}

TEST_F(FindSaveTarget, FollowsLinks) {
  const std::string file = write_file(directory_ / "file", "abc");
  make_link("file", "relative");
  make_link(directory_ / "relative", "absolute");
  make_link("./absolute", "link");
  const SaveTarget target = find_save_target(directory_ / "link");
  EXPECT_EQ(target.name, "file");
  ASSERT_TRUE(target.existing);
  EXPECT_EQ(target.existing->st_size, 3);
}

TEST_F(FindSaveTarget, ResolvesALinkFromTheDirectoryItLiesIn) {
  std::filesystem::create_directories(directory_ / "a/b");
  make_link("../next", "a/b/link");
  make_link("./there", "a/next");
  make_link("a/b", "shortcut");
  const SaveTarget target = find_save_target(directory_ / "shortcut/link");
  EXPECT_EQ(target.name, "there");
  write_file(target.path, "");
  EXPECT_TRUE(std::filesystem::exists(directory_ / "a/there"));
}

TEST_F(FindSaveTarget, FollowsALinkToNothing) {
  const SaveTarget target = find_save_target(make_link("new", "link"));
  EXPECT_EQ(target.path, directory_ / "new");
  EXPECT_FALSE(target.existing);
}

TEST_F(FindSaveTarget, DoesNotFollowALinkIntoACache) {
  const std::vector<std::string> shared = {
      make_link("../../blobs/abc", in_cache("snapshots/1/relative")),
      make_link(directory_ / "blobs/abc", in_cache("snapshots/1/absolute")),
      make_link("../../blobs/none", in_cache("snapshots/1/dangling")),
      make_link("../../../blobs/abc", in_cache("snapshots/1/folder/nested")),
  };
  write_file(directory_ / in_cache("blobs/abc"), "shared");
  for (const std::string& path : shared) {
    const SaveTarget target = find_save_target(path);
    EXPECT_TRUE(target.is_shared) << path;
    EXPECT_EQ(target.path, path);
  }
  // Of several links, the one that leads there.
  const SaveTarget target = find_save_target(make_link("snapshots/1/relative", "link"));
  EXPECT_TRUE(target.is_shared);
  EXPECT_EQ(target.path, directory_ / "snapshots/1/relative");
  EXPECT_TRUE(target.existing);
}

TEST_F(FindSaveTarget, KnowsTheFolderOfACacheByItsName) {
  make_link("models--org--name/blobs/abc", in_cache("link"));
  write_file(directory_ / in_cache("models--org--name/blobs/abc"), "shared");
  EXPECT_TRUE(find_save_target(directory_ / "link").is_shared);
}

TEST_F(FindSaveTarget, FollowsALinkIntoAnyOtherFolderOfThatName) {
  make_link("blobs/abc", "link");
  write_file(directory_ / in_cache("blobs/abc"), "");
  const SaveTarget target = find_save_target(directory_ / "link");
  EXPECT_FALSE(target.is_shared);
  EXPECT_EQ(target.path, directory_ / "blobs/abc");
}

TEST_F(FindSaveTarget, RefusesLinksThatGoRound) {
  make_link("b", "a");
  expect_refused(ELOOP, "Too many levels of symbolic links", make_link("a", "b"));
}

TEST_F(FindSaveTarget, FollowsFortyLinksAndNoMore) {
  write_file(directory_ / "0", "");
  for (int i = 1; i <= 41; ++i) {
    make_link(std::to_string(i - 1), std::to_string(i));
  }
  EXPECT_EQ(find_save_target(directory_ / "40").name, "0");
  expect_refused(ELOOP, "Too many levels of symbolic links", directory_ / "41");
}

TEST_F(FindSaveTarget, RefusesWhatIsNotARegularFile) {
  const std::string fifo = directory_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  expect_refused(EINVAL, "not a regular file", fifo);
  expect_refused(EINVAL, "not a regular file", make_link("fifo", "link"));
  expect_refused(EINVAL, "not a regular file", "/dev/null");
  expect_refused(EISDIR, "Is a directory", directory_.path());
  expect_refused(EISDIR, "Is a directory", directory_.path() + "/");
  expect_refused(EISDIR, "Is a directory", directory_ / ".");
  expect_refused(EISDIR, "Is a directory", make_link(directory_.path(), "to_directory"));
}

TEST_F(FindSaveTarget, RefusesATrailingSlashAsOpenDoes) {
  write_file(directory_ / "file", "");
  expect_refused(ENOTDIR, "Not a directory", directory_ / "file/");
  expect_refused(EISDIR, "Is a directory", directory_ / "new/");
  make_link("new", "dangling");
  expect_refused(EISDIR, "Is a directory", directory_ / "dangling/");
}

TEST_F(FindSaveTarget, RefusesPathsThatAreNone) {
  expect_refused(ENOENT, "No such file or directory", "");
  expect_refused(ENAMETOOLONG, "File name too long", directory_ / std::string(256, 'n'));
  expect_os_error(EINVAL, "[Errno 22] embedded null byte: 'a\\x00'",
                  [] { find_save_target(std::string("a\0", 2)); });
}

#if defined(__linux__)
TEST_F(FindSaveTarget, FollowsTheLinkOfADescriptor) {
  const std::string path = write_file(directory_ / "file", "abc");
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const std::string link = "/proc/self/fd/" + std::to_string(file.get());
  EXPECT_EQ(find_save_target(link).path, path);
  ::unlink(path.c_str());
  expect_refused(EINVAL, "the link leads to a file without a name", link);
}
#endif

}  // namespace
}  // namespace torch_safetensors::io
