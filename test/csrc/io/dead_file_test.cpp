#include "io/dead_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "io/child.h"
#include "io/descriptor.h"
#include "io/faults.h"
#include "io/file_lock.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class RemoveIfDead : public ::testing::Test {
 protected:
  RemoveIfDead() : before_(open_descriptors()) {}
  ~RemoveIfDead() override { EXPECT_EQ(open_descriptors(), before_); }

  size_t before_;
  TestDirectory directory_;
};

TEST_F(RemoveIfDead, FindsNothing) { EXPECT_EQ(remove_if_dead(directory_ / "f"), Remains::kNone); }

TEST_F(RemoveIfDead, RemovesWhatNobodyHolds) {
  EXPECT_EQ(remove_if_dead(write_file(directory_ / "f", "")), Remains::kRemoved);
  EXPECT_TRUE(directory_.names().empty());
}

TEST_F(RemoveIfDead, KeepsWhatIsLocked) {
  const std::string path = write_file(directory_ / "f", "");
  const Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(try_lock(file.get()), Lock::kAcquired);
  EXPECT_EQ(remove_if_dead(path), Remains::kKept);
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(RemoveIfDead, KeepsWhatCannotBeLocked) {
  const FaultsGuard guard;
  faults.flock = ENOSYS;
  const std::string path = write_file(directory_ / "f", "");
  EXPECT_EQ(remove_if_dead(path), Remains::kKept);
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(RemoveIfDead, KeepsWhatIsNotARegularFile) {
  write_file(directory_ / "file", "");
  ASSERT_EQ(::symlink("file", (directory_ / "link").c_str()), 0);
  ASSERT_EQ(::symlink("nothing", (directory_ / "dangling").c_str()), 0);
  ASSERT_EQ(::mkdir((directory_ / "folder").c_str(), 0700), 0);
  ASSERT_EQ(::mkfifo((directory_ / "fifo").c_str(), 0600), 0);
  for (const char* name : {"link", "dangling", "folder", "fifo"}) {
    EXPECT_EQ(remove_if_dead(directory_ / name), Remains::kKept) << name;
  }
  EXPECT_EQ(directory_.names().size(), 5U);
}

TEST_F(RemoveIfDead, KeepsAnotherFileThatTookTheNameMeanwhile) {
  const FaultsGuard guard;
  const std::string path = write_file(directory_ / "f", "");
  faults.before_flock = [&] {
    ASSERT_EQ(::rename(path.c_str(), (directory_ / "model").c_str()), 0);
    write_file(path, "another's");
  };
  EXPECT_EQ(remove_if_dead(path), Remains::kNone);
  EXPECT_EQ(read_file(path), "another's");
  EXPECT_EQ(directory_.names().size(), 2U);
}

TEST_F(RemoveIfDead, RemovesAReadOnlyFileOfItsOwner) {
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0777), 0);
  const std::string path = directory_ / "f";
  const int code = run_unprivileged([&] {
    Descriptor(::open(path.c_str(), O_WRONLY | O_CREAT, 0444));
    ::_exit(remove_if_dead(path) == Remains::kRemoved ? 0 : 1);
  });
  EXPECT_EQ(code, 0);
}

TEST_F(RemoveIfDead, KeepsWhatItMayNotOpen) {
  const std::string path = write_file(directory_ / "f", "");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
  EXPECT_EQ(run_unprivileged([&] { ::_exit(remove_if_dead(path) == Remains::kKept ? 0 : 1); }), 0);
}

}  // namespace
}  // namespace torch_safetensors::io
