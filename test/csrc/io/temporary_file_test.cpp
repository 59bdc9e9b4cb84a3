#include "io/temporary_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/file_lock.h"
#include "io/lock_domain.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class TemporaryFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<TemporaryFile> make(mode_t mode = 0600, Access access = Access::kMaker) const {
    return std::make_unique<TemporaryFile>(target_, mode, "given", access);
  }

  /// A file that nobody has locked.
  std::string dead(const std::string& name, std::chrono::hours age = {}) const {
    const std::string path = write_file(directory_ / name, "");
    const timespec then{::time(nullptr) - std::chrono::seconds(age).count(), 0};
    const timespec times[] = {then, then};
    EXPECT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    return path;
  }

  TestDirectory directory_;
  SaveTarget target_ = find_save_target(directory_ / "model");
  // The hash is part of what other programs must agree on, hence spelled out.
  std::string prefix_ = directory_ / ".st-9de543933e6e703a-";
};

TEST_F(TemporaryFileTest, HasTheFirstFreeSlot) {
  const auto first = make();
  const auto second = make();
  EXPECT_EQ(first->path(), prefix_ + "0");
  EXPECT_EQ(second->path(), prefix_ + "1");
  EXPECT_EQ(directory_.names().size(), 2U);
}

TEST_F(TemporaryFileTest, IsRemovedUnlessReleased) {
  const size_t before = open_descriptors();
  make();
  EXPECT_TRUE(directory_.names().empty());
  make()->remove();
  EXPECT_TRUE(directory_.names().empty());
  make()->release();
  EXPECT_EQ(directory_.names().size(), 1U);
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(TemporaryFileTest, HasTheModeFromTheBeginning) {
  EXPECT_EQ(mode_of(make(0400)->path()), 0400U);
  const mode_t umask = ::umask(027);
  EXPECT_EQ(mode_of(make(0666)->path()), 0640U);
  ::umask(umask);
}

TEST_F(TemporaryFileTest, RemovesWhatTheDeadLeft) {
  // Four saves at once, of which the second is alive.
  std::list<std::unique_ptr<TemporaryFile>> files;
  for (int i = 0; i < 4; ++i) {
    files.push_back(make());
  }
  const auto living = std::move(*std::next(files.begin()));
  files.erase(std::next(files.begin()));
  for (const auto& dead : files) {
    dead->release();
  }
  ASSERT_EQ(directory_.names().size(), 4U);
  EXPECT_EQ(make()->path(), prefix_ + "0");
  EXPECT_EQ(directory_.names().size(), 1U);
  EXPECT_TRUE(living->is_in_place("given"));
}

TEST_F(TemporaryFileTest, OfOtherTargetsAreRemovedWithTheDirectorysDead) {
  const auto living = make();
  write_file(directory_ / ".st-0123456789abcdef-7", "");
  write_file(directory_ / "model", "");
  remove_dead_files(directory_.path());
  EXPECT_EQ(directory_.names(),
            (std::vector<std::string>{living->path().substr(directory_.path().size() + 1), "model"}));
}

TEST_F(TemporaryFileTest, OfOthersFormIsNotRemovedWithTheDirectorysDead) {
  for (const char* const name : {".st-notes.txt", ".st-0123456789abcdef-999.bak", ".st-0123456789abcdef-1024",
                                 ".st-0123456789abcdef-7-x", ".st-"}) {
    write_file(directory_ / name, "");
  }
  dead(".st-0123456789abcdef-7-fedcba9876543210");
  remove_dead_files(directory_.path());
  EXPECT_EQ(directory_.names().size(), 5U);
}

TEST_F(TemporaryFileTest, IsNotKeptLockedByAForkedChild) {
  for (const bool is_released : {false, true}) {
    auto file = make();
    const std::string path = directory_ / "renamed";
    ASSERT_EQ(::rename(file->path().c_str(), path.c_str()), 0);
    const Child child([](auto done) { done(); });
    if (is_released) {
      file->release();
    }
    file.reset();
    const Descriptor other(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    EXPECT_EQ(try_lock(other.get()), Lock::kAcquired) << is_released;
  }
}

TEST_F(TemporaryFileTest, IsOfTheParentInAForkedChild) {
  auto file = make(0600, Access::kOthers);
  EXPECT_EQ(run_in_child([&] { file.reset(); }), 0);
  EXPECT_EQ(directory_.names().size(), 2U);
  remove_dead_files(directory_.path());
  EXPECT_EQ(directory_.names().size(), 2U);
}

TEST_F(TemporaryFileTest, ForOthersHasANameOfItsOwn) {
  std::string before;
  for (int i = 0; i < 3; ++i) {
    const auto file = make(0600, Access::kOthers);
    EXPECT_TRUE(file->path().starts_with(prefix_ + "0-"));
    EXPECT_NE(file->path(), before);
    EXPECT_TRUE(file->is_in_place("given"));
    EXPECT_EQ(directory_.names().size(), 2U);
    EXPECT_EQ(make()->path(), prefix_ + "1");  // its slot is taken
    before = file->path();
  }
  EXPECT_TRUE(directory_.names().empty());
}

TEST_F(TemporaryFileTest, ForOthersIsReleasedUnderItsName) {
  const auto file = make(0600, Access::kOthers);
  ASSERT_EQ(::rename(file->path().c_str(), (directory_ / "model").c_str()), 0);
  file->release();
  EXPECT_EQ(directory_.names(), std::vector<std::string>{"model"});
}

TEST_F(TemporaryFileTest, ForOthersIsFoundBySlotWhenItsMakerWasKilled) {
  make(0600, Access::kOthers)->leave();
  dead(".st-0123456789abcdef-0-fedcba9876543210");  // of another target
  ASSERT_EQ(directory_.names().size(), 3U);
  EXPECT_EQ(make()->path(), prefix_ + "0");
  EXPECT_EQ(directory_.names().size(), 1U);
  // One of two that live is left alone.
  make(0600, Access::kOthers)->leave();
  const auto living = make(0600, Access::kOthers);
  make(0600, Access::kOthers)->leave();
  make();
  EXPECT_EQ(directory_.names().size(), 3U);
  EXPECT_TRUE(living->is_in_place("given"));
}

TEST_F(TemporaryFileTest, OfAnotherHostIsNotDeadBecauseItsLockIsNotSeen) {
  const FaultsGuard guard;
  faults.fstatfs = 0x6969;  // NFS
  const std::string here = lock_domain(directory_.path() + "/");
  const std::string there(16, here[0] == '0' ? '1' : '0');
  const std::string young = dead(".st-9de543933e6e703a." + there + "-0");
  const std::string local = dead(".st-9de543933e6e703a-0");  // of the server itself
  const std::string old = dead(".st-9de543933e6e703a." + there + "-1", std::chrono::hours(24 * 8));
  const std::string own = dead(".st-9de543933e6e703a." + here + "-0");
  {
    const auto file = make();
    EXPECT_EQ(file->path(), own);
    EXPECT_TRUE(std::filesystem::exists(local));
    const auto second = make(0600, Access::kOthers);
    EXPECT_TRUE(second->path().starts_with(directory_ / (".st-9de543933e6e703a." + here + "-1-")));
  }
  dead(".st-9de543933e6e703a." + here + "-7");
  remove_dead_files(directory_.path());
  EXPECT_TRUE(std::filesystem::exists(young));
  EXPECT_TRUE(std::filesystem::exists(local));
  EXPECT_FALSE(std::filesystem::exists(old));
  EXPECT_EQ(directory_.names().size(), 2U);
}

TEST_F(TemporaryFileTest, OfAnotherHostIsKnownOnTheServerToo) {
  const std::string young = dead(".st-9de543933e6e703a.0123456789abcdef-0");
  dead(".st-9de543933e6e703a.0123456789abcdef-1", std::chrono::hours(24 * 8));
  dead(".st-9de543933e6e703a-0");
  remove_dead_files(directory_.path());
  EXPECT_TRUE(std::filesystem::exists(young));
  EXPECT_EQ(directory_.names().size(), 1U);
}

TEST_F(TemporaryFileTest, FindsTheDeadBehindGaps) {
  write_file(prefix_ + "8", "");
  write_file(prefix_ + "16", "");
  make();
  EXPECT_TRUE(directory_.names().empty());
}

TEST_F(TemporaryFileTest, LeavesOtherTargetsAlone) {
  write_file(directory_ / ".st-0123456789abcdef-0", "");
  make();
  EXPECT_EQ(directory_.names().size(), 1U);
}

TEST_F(TemporaryFileTest, WorksWithoutLocks) {
  const FaultsGuard guard;
  for (const int error : {ENOSYS, EOPNOTSUPP, ENOLCK, EINVAL}) {
    faults.flock = error;
    const auto first = make();
    const auto second = make();
    EXPECT_EQ(second->path(), prefix_ + "1");
    EXPECT_TRUE(first->is_in_place("given"));
  }
  EXPECT_TRUE(directory_.names().empty());
}

TEST_F(TemporaryFileTest, SaysWhenAllSlotsAreTaken) {
  const FaultsGuard guard;
  faults.flock = ENOSYS;
  for (int i = 0; i < 1024; ++i) {
    write_file(prefix_ + std::to_string(i), "");
  }
  const size_t before = open_descriptors();
  expect_os_error(EEXIST,
                  "[Errno " + std::to_string(EEXIST) +
                      "] 1024 temporary files of other saves are in the way; remove '" + prefix_ +
                      "*': 'given'",
                  [&] { make(); });
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(TemporaryFileTest, KnowsWhenItIsGone) {
  const auto file = make();
  EXPECT_TRUE(file->is_in_place("given"));
  ASSERT_EQ(::write(file->descriptor(), "abc", 3), 3);
  ::unlink(file->path().c_str());
  EXPECT_FALSE(file->is_in_place("given"));
  write_file(file->path(), "ab");
  EXPECT_FALSE(file->is_in_place("given"));
  write_file(file->path(), "abc");
  EXPECT_TRUE(file->is_in_place("given"));
}

TEST_F(TemporaryFileTest, NamesTheTargetInItsErrors) {
  const SaveTarget target = find_save_target(directory_ / "no/model");
  expect_os_error(ENOENT, "[Errno 2] No such file or directory: 'given'",
                  [&] { TemporaryFile(target, 0600, "given"); });
}

TEST_F(TemporaryFileTest, IsMadeAgainWhenItWasTakenForDeadBeforeItsLock) {
  const FaultsGuard guard;
  faults.before_flock = [&] { ::unlink((prefix_ + "0").c_str()); };
  const auto file = make();
  EXPECT_EQ(file->path(), prefix_ + "0");
  EXPECT_TRUE(is_name_of(file->path(), file->descriptor()));
}

TEST_F(TemporaryFileTest, GivesWayToWhoIsAboutToRemoveIt) {
  const FaultsGuard guard;
  Descriptor judge;
  faults.before_flock = [&] {
    judge = Descriptor(::open((prefix_ + "0").c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(try_lock(judge.get()), Lock::kAcquired);
  };
  EXPECT_EQ(make()->path(), prefix_ + "1");
}

TEST_F(TemporaryFileTest, IsNeverTakenForDeadBetweenCreationAndLock) {
  // Many threads create and sweep the same slots: what one holds must stay its own.
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 100; ++k) {
        const auto file = make();
        EXPECT_TRUE(is_name_of(file->path(), file->descriptor()));
        std::this_thread::yield();
        EXPECT_TRUE(is_name_of(file->path(), file->descriptor()));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_TRUE(directory_.names().empty());
}

}  // namespace
}  // namespace torch_safetensors::io
