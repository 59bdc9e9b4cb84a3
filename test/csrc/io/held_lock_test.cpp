#include "io/held_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "io/child.h"
#include "io/descriptor.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/file_lock.h"
#include "io/folder_lock.h"
#include "io/lock_holder.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr const char* kVariable = "TORCH_SAFETENSORS_LOCK_TIMEOUT";

class HeldLockTest : public ::testing::Test {
 protected:
  ~HeldLockTest() override { ::unsetenv(kVariable); }

  Descriptor open() const { return Descriptor(::open(path_.c_str(), O_RDWR | O_CLOEXEC)); }

  /// A process that has the lock until it is killed.
  Child holder() const {
    return Child([&](auto done) {
      const Descriptor file = open();
      if (try_lock(file.get()) == Lock::kAcquired) {
        done();
      }
    });
  }

  TestDirectory directory_;
  std::string path_ = write_file(directory_ / "f", "");
};

TEST_F(HeldLockTest, IsWaitedFor) {
  const Descriptor first = open();
  const Descriptor second = open();
  std::optional<HeldLock> lock(std::in_place, first.get(), path_, OnWait());
  bool is_waiting = false;
  std::thread waiting([&] {
    // It is given up when the other thread has failed to get it.
    const HeldLock other(second.get(), path_, [&](const std::string&) {
      if (!std::exchange(is_waiting, true)) {
        unlock(first.get());
      }
    });
    EXPECT_EQ(try_lock(open().get()), Lock::kBusy);
  });
  waiting.join();
  EXPECT_TRUE(is_waiting);
  EXPECT_EQ(try_lock(open().get()), Lock::kAcquired);
}

TEST_F(HeldLockTest, EndsWithItsObjectAlsoWhereAChildWasForked) {
  const Descriptor first = open();
  std::optional<HeldLock> lock(std::in_place, first.get(), path_, OnWait());
  const Child child([](auto done) { done(); });
  lock.reset();
  EXPECT_EQ(try_lock(open().get()), Lock::kAcquired);
}

TEST_F(HeldLockTest, IsOfTheParentInAForkedChild) {
  const Descriptor first = open();
  std::optional<HeldLock> lock(std::in_place, first.get(), path_, OnWait());
  EXPECT_EQ(run_in_child([&] {
              // Not its own, so that it could be waited for.
              const Descriptor second = open();
              HeldLock(second.get(), path_, OnWait(), {Seconds(0)});
            }),
            ETIMEDOUT);
  EXPECT_EQ(run_in_child([&] { lock.reset(); }), 0);
  EXPECT_EQ(try_lock(open().get()), Lock::kBusy);
}

TEST_F(HeldLockTest, IsNotWaitedForWithoutEnd) {
  const Child child = holder();
  const Descriptor file = open();
  const std::string holder = lock_holder(file.get());
  EXPECT_NE(holder, "another thread of this process");
  expect_os_error(ETIMEDOUT,
                  "[Errno " + std::to_string(ETIMEDOUT) + "] waited 0 seconds for its lock, which " + holder +
                      " holds; TORCH_SAFETENSORS_LOCK_TIMEOUT sets how long: '" + path_ + "'",
                  [&] { HeldLock(file.get(), path_, OnWait(), {Seconds(0)}); });
  ::setenv(kVariable, "0.001", 1);
  EXPECT_THROW(HeldLock(file.get(), path_, OnWait()), OsError);
}

#if defined(__linux__)
TEST_F(HeldLockTest, NamesTheHolder) {
  if (read_file("/proc/locks").empty() && ::access("/proc/locks", R_OK) != 0) {
    GTEST_SKIP() << "this system does not tell";
  }
  const Descriptor file = open();
  ASSERT_EQ(try_lock(file.get()), Lock::kAcquired);
  EXPECT_EQ(lock_holder(open().get()), "another thread of this process");
  unlock(file.get());
  EXPECT_EQ(lock_holder(open().get()), "another process");
  const Child child = holder();
  EXPECT_TRUE(lock_holder(file.get()).starts_with("process ")) << lock_holder(file.get());
}
#endif

TEST_F(HeldLockTest, IsNotWaitedForByTheThreadThatHoldsIt) {
  const Descriptor first = open();
  const Descriptor second = open();
  const HeldLock lock(first.get(), path_, OnWait());
  expect_os_error(EDEADLK,
                  "[Errno " + std::to_string(EDEADLK) +
                      "] this thread holds its lock already: a function that reports progress cannot begin "
                      "another save there: '" +
                      path_ + "'",
                  [&] { HeldLock(second.get(), path_, OnWait()); });
}

TEST_F(HeldLockTest, CanBeHadAgainByTheThreadThatHeldIt) {
  for (int i = 0; i < 3; ++i) {
    const Descriptor file = open();
    const HeldLock lock(file.get(), path_, OnWait());
  }
  const Child child = holder();
  const Descriptor file = open();
  EXPECT_THROW(HeldLock(file.get(), path_, OnWait(), {Seconds(0)}), OsError);
}

TEST_F(HeldLockTest, IsWaitedForAloud) {
  const Child child = holder();
  const Descriptor file = open();
  std::vector<std::string> notices;
  size_t calls = 0;
  const OnWait on_wait = [&](const std::string& notice) {
    if (!notice.empty()) {
      notices.push_back(notice);
    }
    if (++calls == 4) {
      throw std::logic_error("interrupted");
    }
  };
  EXPECT_THROW(HeldLock(file.get(), path_, on_wait, {Seconds(1000), Seconds(0)}), std::logic_error);
  ASSERT_EQ(notices.size(), 1U);
  EXPECT_EQ(notices[0],
            "waiting for the lock of '" + path_ + "', which " + lock_holder(file.get()) + " holds");
}

TEST_F(HeldLockTest, CannotBeHadWithoutLocks) {
  const FaultsGuard guard;
  faults.flock = ENOLCK;
  const Descriptor file = open();
  expect_os_error(ENOLCK, "[Errno 37] No locks available: '" + path_ + "'",
                  [&] { HeldLock(file.get(), path_, OnWait()); });
}

TEST_F(HeldLockTest, IsWaitedForAsLongAsTheVariableSays) {
  EXPECT_EQ(Patience::from_environment(path_).limit, Seconds(600));
  ::setenv(kVariable, "1.5", 1);
  EXPECT_EQ(Patience::from_environment(path_).limit, Seconds(1.5));
  ::setenv(kVariable, "1e300", 1);
  EXPECT_EQ(Patience::from_environment(path_).limit, Seconds(1e9));
  for (const char* const wrong : {"", "-1", "1s", "nan", "inf", "never"}) {
    ::setenv(kVariable, wrong, 1);
    expect_os_error(
        EINVAL,
        std::string("[Errno 22] TORCH_SAFETENSORS_LOCK_TIMEOUT must be a number of seconds, not '") + wrong +
            "': '" + path_ + "'",
        [&] { Patience::from_environment(path_); });
  }
}

TEST_F(HeldLockTest, OfAFolder) {
  const FaultsGuard guard;
  {
    const FolderLock first(directory_.path(), OnWait());
    EXPECT_THROW(FolderLock(directory_.path(), OnWait()), OsError);  // of this thread
    std::thread([&] {
      ::setenv(kVariable, "0", 1);
      EXPECT_THROW(FolderLock(directory_.path(), OnWait()), OsError);
    }).join();
    faults.flock = EBADF;  // as NFS says of directories
    const FolderLock without(directory_.path(), OnWait());
    faults.flock = 0;
  }
  const FolderLock again(directory_.path(), OnWait());
  expect_os_error(ENOENT, "[Errno 2] No such file or directory: '" + (directory_ / "none") + "'",
                  [&] { FolderLock(directory_ / "none", OnWait()); });
  EXPECT_THROW(FolderLock(path_, OnWait()), OsError);
}

}  // namespace
}  // namespace torch_safetensors::io
