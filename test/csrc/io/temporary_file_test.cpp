#include "io/temporary_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/file_lock.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class TemporaryFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<TemporaryFile> make(mode_t mode = 0600) const {
    return std::make_unique<TemporaryFile>(target_, mode, "given");
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
