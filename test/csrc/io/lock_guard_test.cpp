#include "io/lock_guard.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <vector>

#include "io/child.h"
#include "io/descriptor.h"
#include "io/file_lock.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class LockGuardTest : public ::testing::Test {
 protected:
  Descriptor open() const { return Descriptor(::open(path_.c_str(), O_RDWR | O_CLOEXEC)); }

  TestDirectory directory_;
  std::string path_ = write_file(directory_ / "f", "");
};

TEST_F(LockGuardTest, EndsTheLock) {
  const Descriptor file = open();
  ASSERT_EQ(try_lock(file.get()), Lock::kAcquired);
  std::optional<LockGuard> guard(file.get());
  EXPECT_EQ(try_lock(open().get()), Lock::kBusy);
  guard.reset();
  EXPECT_EQ(try_lock(open().get()), Lock::kAcquired);
}

TEST_F(LockGuardTest, IsOfTheParentInAForkedChild) {
  const Descriptor file = open();
  ASSERT_EQ(try_lock(file.get()), Lock::kAcquired);
  std::optional<LockGuard> guard(file.get());
  EXPECT_EQ(run_in_child([&] { guard.reset(); }), 0);
  EXPECT_EQ(try_lock(open().get()), Lock::kBusy);
}

TEST_F(LockGuardTest, LeavesNoLockToChildrenOfAProcessThatIsKilled) {
  int ids[2];
  ASSERT_EQ(::pipe(ids), 0);
  pid_t grandchild = 0;
  Child child([&](auto done) {
    const Descriptor file = open();
    if (try_lock(file.get()) != Lock::kAcquired) {
      return;
    }
    const LockGuard guard(file.get());
    const pid_t forked = ::fork();
    if (forked == 0) {
      for (int other = 3; other < 1024; ++other) {  // among them the pipe that Child waits for
        if (other != file.get()) {
          ::close(other);
        }
      }
      for (;;) {
        ::pause();
      }
    }
    if (::write(ids[1], &forked, sizeof(forked)) == sizeof(forked)) {
      done();
    }
  });
  ASSERT_EQ(::read(ids[0], &grandchild, sizeof(grandchild)), static_cast<ssize_t>(sizeof(grandchild)));
  EXPECT_EQ(try_lock(open().get()), Lock::kBusy);
  child.kill();
  EXPECT_EQ(try_lock(open().get()), Lock::kAcquired);
  EXPECT_EQ(::kill(grandchild, 0), 0);
  ::kill(grandchild, SIGKILL);
  ::close(ids[0]);
  ::close(ids[1]);
}

TEST_F(LockGuardTest, LeavesDescriptorsOpenInAForkedChild) {
  std::vector<Descriptor> files;
  std::vector<std::unique_ptr<LockGuard>> guards;
  for (int i = 0; i < 1100; ++i) {  // more than are looked after
    if (i < 500) {
      files.push_back(Descriptor(::open(write_file(directory_ / std::to_string(i), "").c_str(), O_RDWR)));
    }
    guards.push_back(std::make_unique<LockGuard>(files[i % files.size()].get()));
  }
  const size_t before = open_descriptors();
  EXPECT_EQ(run_in_child([&] {
              for (const Descriptor& file : files) {
                if ((::fcntl(file.get(), F_GETFD) & FD_CLOEXEC) == 0) {
                  ::_exit(1);
                }
              }
              if (open_descriptors() != before) {
                ::_exit(2);
              }
            }),
            0);
}

}  // namespace
}  // namespace torch_safetensors::io
