#include "io/in_place_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <stdexcept>

#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/file_lock.h"
#include "io/save.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class InPlaceFileTest : public ::testing::Test {
 protected:
  TestDirectory directory_;
  std::string path_ = write_file(directory_ / "f", "0123456789");
};

TEST_F(InPlaceFileTest, WritesWhereItLies) {
  InPlaceFile file(path_);
  file.write_at(2, readable("ab"));
  file.flush();
  file.flush_directory();
  EXPECT_EQ(read_file(path_), "01ab456789");
}

TEST_F(InPlaceFileTest, FollowsLinks) {
  const std::string link = directory_ / "link";
  ASSERT_EQ(::symlink("f", link.c_str()), 0);
  InPlaceFile file(link);
  EXPECT_EQ(file.path(), path_);
  EXPECT_EQ(file.beside(".x"), path_ + ".x");
  file.write_at(0, readable("ab"));
  EXPECT_EQ(read_file(path_), "ab23456789");
}

TEST_F(InPlaceFileTest, IsLocked) {
  const InPlaceFile file(path_);
  const Descriptor other(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_EQ(try_lock(other.get()), Lock::kBusy);
}

TEST_F(InPlaceFileTest, IsNotKeptLockedByAForkedChild) {
  std::optional<InPlaceFile> file(path_);
  const Child child([](auto done) { done(); });
  file.reset();
  const Descriptor other(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_EQ(try_lock(other.get()), Lock::kAcquired);
}

TEST_F(InPlaceFileTest, TellsWhoItWaitsFor) {
  const Descriptor other(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(try_lock(other.get()), Lock::kAcquired);
  // What is thrown is no error of the system: a signal's handler ends a wait in this way.
  EXPECT_THROW(InPlaceFile(path_, [](const std::string&) { throw std::logic_error("interrupted"); }),
               std::logic_error);
}

TEST_F(InPlaceFileTest, LeavesFilesOfACacheAlone) {
  std::filesystem::create_directories(directory_ / "blobs");
  std::filesystem::create_directories(directory_ / "snapshots/1");
  write_file(directory_ / "blobs/abc", "shared");
  const std::string link = directory_ / "snapshots/1/f";
  ASSERT_EQ(::symlink("../../blobs/abc", link.c_str()), 0);
  expect_os_error(EPERM,
                  "[Errno 1] the link leads into a cache, to a file that other revisions share and that must "
                  "not change; save a copy in place of the link first: '" +
                      link + "'",
                  [&] { InPlaceFile file(link); });
}

TEST_F(InPlaceFileTest, LocksTheFileThatHasTheNameByNow) {
  const FaultsGuard guard;
  faults.before_flock = [this] { save(path_, "new"); };
  InPlaceFile file(path_);
  EXPECT_TRUE(file.is_in_place());
  file.write_at(0, readable("N"));
  EXPECT_EQ(read_file(path_), "New");
}

TEST_F(InPlaceFileTest, KnowsThatItWasReplaced) {
  const InPlaceFile file(path_);
  EXPECT_TRUE(file.is_in_place());
  const std::string identity = file.identity();
  save(path_, "new");
  EXPECT_FALSE(file.is_in_place());
  EXPECT_NE(InPlaceFile(path_).identity(), identity);
  ::unlink(path_.c_str());
  EXPECT_FALSE(file.is_in_place());
}

TEST_F(InPlaceFileTest, StaysTheSameWhenItIsWritten) {
  const std::string identity = InPlaceFile(path_).identity();
  InPlaceFile(path_).write_at(0, readable("x"));
  EXPECT_EQ(InPlaceFile(path_).identity(), identity);
}

TEST_F(InPlaceFileTest, HasFilesBesideIt) {
  const InPlaceFile file(path_);
  EXPECT_FALSE(file.has(".x"));
  expect_os_error(ENOENT, "[Errno 2] No such file or directory: '" + path_ + "'", [&] { file.remove(".x"); });
  file.discard(".x");
  write_file(path_ + ".x", "");
  EXPECT_TRUE(file.has(".x"));
  file.remove(".x");
  EXPECT_FALSE(file.has(".x"));
  EXPECT_FALSE(file.has(std::string(300, 'x')));
}

TEST_F(InPlaceFileTest, RefusesWhatIsNoFile) {
  expect_os_error(EISDIR, "[Errno 21] Is a directory: '" + directory_.path() + "'",
                  [&] { InPlaceFile file(directory_.path()); });
  expect_os_error(ENOENT, "[Errno 2] No such file or directory: '" + (directory_ / "none") + "'",
                  [&] { InPlaceFile file(directory_ / "none"); });
}

}  // namespace
}  // namespace torch_safetensors::io
