#include "io/file_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "io/child.h"
#include "io/descriptor.h"
#include "io/faults.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class TryLock : public ::testing::Test {
 protected:
  Descriptor open() const { return Descriptor(::open(path_.c_str(), O_RDWR | O_CLOEXEC)); }

  TestDirectory directory_;
  std::string path_ = write_file(directory_ / "f", "");
};

TEST_F(TryLock, HoldsAgainstOtherDescriptors) {
  Descriptor first = open();
  const Descriptor second = open();
  EXPECT_EQ(try_lock(first.get()), Lock::kAcquired);
  EXPECT_EQ(try_lock(second.get()), Lock::kBusy);
  first.close();
  EXPECT_EQ(try_lock(second.get()), Lock::kAcquired);
}

TEST_F(TryLock, IsNotKeptByAForkedChild) {
  const Descriptor first = open();
  const Descriptor second = open();
  ASSERT_EQ(try_lock(first.get()), Lock::kAcquired);
  const Child child([](auto done) { done(); });
  unlock(first.get());
  EXPECT_EQ(try_lock(second.get()), Lock::kAcquired);
}

TEST_F(TryLock, HoldsUntilItsProcessIsKilled) {
  Child child([&](auto done) {
    const Descriptor file = open();
    if (try_lock(file.get()) == Lock::kAcquired) {
      done();
    }
  });
  const Descriptor file = open();
  EXPECT_EQ(try_lock(file.get()), Lock::kBusy);
  child.kill();
  EXPECT_EQ(try_lock(file.get()), Lock::kAcquired);
}

TEST_F(TryLock, KnowsFileSystemsWithoutLocks) {
  const FaultsGuard guard;
  for (const int error : {ENOSYS, EOPNOTSUPP, ENOLCK, EINVAL, EPERM, EBADF}) {
    faults.flock = error;
    EXPECT_EQ(try_lock(open().get()), Lock::kUnsupported) << error;
  }
}

TEST_F(TryLock, KnowsTheNameOfAFile) {
  const Descriptor file = open();
  EXPECT_TRUE(is_name_of(path_, file.get()));
  EXPECT_FALSE(is_name_of(directory_ / "other", file.get()));
  ASSERT_EQ(::symlink("f", (directory_ / "link").c_str()), 0);
  EXPECT_FALSE(is_name_of(directory_ / "link", file.get()));
  ::unlink(path_.c_str());
  EXPECT_FALSE(is_name_of(path_, file.get()));
  write_file(path_, "");
  EXPECT_FALSE(is_name_of(path_, file.get()));
}

}  // namespace
}  // namespace torch_safetensors::io
