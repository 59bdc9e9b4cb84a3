#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <thread>
#include <vector>

#include "io/atomic_file.h"
#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/mapping.h"
#include "io/save.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

using Names = std::vector<std::string>;

/// File systems that lack something.
class AtomicFileFaults : public ::testing::Test {
 protected:
  AtomicFileFaults() : before_(open_descriptors()) {}
  ~AtomicFileFaults() override { EXPECT_EQ(open_descriptors(), before_); }

  void expect_fails(int number, const std::string& text, bool durable = false) {
    write_file(path_, "old");
    expect_os_error(number, "[Errno " + std::to_string(number) + "] " + text + ": '" + path_ + "'",
                    [&] { save(path_, "new", durable); });
    EXPECT_EQ(read_file(path_), "old");
    EXPECT_EQ(directory_.names(), Names{"model"});
  }

  size_t before_;
  FaultsGuard guard_;
  TestDirectory directory_;
  std::string path_ = directory_ / "model";
};

TEST_F(AtomicFileFaults, DoesWithoutModesAndOwners) {
  for (const int error : {ENOSYS, EOPNOTSUPP, EPERM, ENOTSUP}) {
    faults.fchmod = faults.fchown = error;
    write_file(path_, "old");
    ASSERT_EQ(::chmod(path_.c_str(), 0640), 0);
    EXPECT_EQ(save(path_, "new"), Commit::kRenamed);
    EXPECT_EQ(read_file(path_), "new");
    EXPECT_EQ(mode_of(path_), 0640U);
  }
}

TEST_F(AtomicFileFaults, DoesWithoutLocks) {
  for (const int error : {ENOSYS, EOPNOTSUPP, ENOLCK, EINVAL, EPERM}) {
    faults.flock = error;
    EXPECT_EQ(save(path_, "new"), Commit::kRenamed);
    EXPECT_EQ(directory_.names(), Names{"model"});
  }
}

TEST_F(AtomicFileFaults, WritesInPlaceWithoutRename) {
  for (const int error : {ENOSYS, EOPNOTSUPP, EPERM, ENOTSUP}) {
    faults.rename = error;
    EXPECT_EQ(save(path_, "a new file", /*durable=*/true), Commit::kWrittenInPlace);
    EXPECT_EQ(read_file(path_), "a new file");
    ::unlink(path_.c_str());
#if defined(__linux__)
    write_file(path_, "an old file that is longer");
    EXPECT_EQ(save(path_, "new"), Commit::kWrittenInPlace);
    EXPECT_EQ(read_file(path_), "new");
#endif
    EXPECT_LE(directory_.names().size(), 1U);
  }
}

TEST_F(AtomicFileFaults, RemovesTheTemporaryFileAsSoonAsItIsWrittenInPlace) {
  faults.rename = ENOSYS;
  AtomicFile file(path_);
  file.commit();
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileFaults, DoesNotWriteInPlaceWhatIsMapped) {
  faults.rename = EPERM;
  std::optional<Mapping> mapping(std::in_place, File(write_file(path_, "old")));
  expect_fails(EPERM,
               "Operation not permitted; the file cannot be renamed into place, nor overwritten while this "
               "process has it mapped; save under another name");
#if defined(__linux__)
  mapping.reset();
  EXPECT_EQ(save(path_, "new"), Commit::kWrittenInPlace);
#endif
}

TEST_F(AtomicFileFaults, ReportsOtherErrorsOfRename) {
  faults.rename = EIO;
  expect_fails(EIO, "Input/output error");
  faults.rename = EXDEV;
  expect_fails(EXDEV, "Invalid cross-device link");
}

TEST_F(AtomicFileFaults, ReportsWhatOnlyCloseSays) {
  faults.close = EDQUOT;
  AtomicFile file(path_);
  expect_os_error(EDQUOT, "[Errno " + std::to_string(EDQUOT) + "] Disk quota exceeded: '" + path_ + "'",
                  [&] { file.commit(); });
  faults.close = 0;
}

#if defined(__linux__)  // macOS flushes with fcntl
TEST_F(AtomicFileFaults, FlushesFileAndDirectoryOnRequest) {
  save(path_, "new");
  EXPECT_EQ(faults.fsyncs, 0);
  save(path_, "new", /*durable=*/true);
  EXPECT_EQ(faults.fsyncs, 2);
}

TEST_F(AtomicFileFaults, ReportsWhatTheDiskLost) {
  faults.fsync_file = EIO;
  expect_fails(EIO, "Input/output error", /*durable=*/true);
}

TEST_F(AtomicFileFaults, WritesLargeDurableFilesPastThePageCache) {
  faults.fstatfs = 0xEF53;  // ext4, wherever the folder lies
  const std::string contents = pattern((20 << 20) + 1);
  for (const int refused : {0, EINVAL}) {
    faults.direct_pwrite = refused;
    EXPECT_EQ(save(path_, contents, /*durable=*/true), Commit::kRenamed);
    EXPECT_TRUE(read_file(path_) == contents);
    faults.rename = EPERM;
    EXPECT_EQ(save(path_, contents + "!", /*durable=*/true), Commit::kWrittenInPlace);
    EXPECT_TRUE(read_file(path_) == contents + "!");
    faults.rename = 0;
  }
  EXPECT_EQ(faults.fsyncs, 10);
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileFaults, ReportsAFullDiskInTheMiddleOfALargeDurableFile) {
  faults.fstatfs = 0xEF53;
  const std::string contents = pattern(40 << 20);
  for (const int error : {ENOSPC, EDQUOT, EIO}) {
    write_file(path_, "old");
    faults.pwrite = error;
    faults.pwrite_room = 20 << 20;
    EXPECT_THROW(save(path_, contents, /*durable=*/true), OsError);
    EXPECT_EQ(read_file(path_), "old");
    EXPECT_EQ(directory_.names(), Names{"model"});
  }
}

TEST_F(AtomicFileFaults, ReportsANameThatTheDiskLost) {
  faults.fsync_directory = EIO;
  AtomicFile file(path_, /*durable=*/true);
  expect_os_error(EIO,
                  "[Errno 5] Input/output error; the new file is in place, but may not survive a power "
                  "failure: '" +
                      path_ + "'",
                  [&] { file.commit(); });
  EXPECT_TRUE(file.is_published());
  EXPECT_EQ(directory_.names(), Names{"model"});
}
#endif

TEST_F(AtomicFileFaults, IsNotPublishedWhereRenameFails) {
  faults.rename = EIO;
  AtomicFile file(path_);
  EXPECT_THROW(file.commit(), OsError);
  EXPECT_FALSE(file.is_published());
}

TEST_F(AtomicFileFaults, IsNotCommittedAfterAWriteThatFailed) {
  write_file(path_, "old");
  AtomicFile file(path_, false, Order::kAtAnyPlace);
  std::thread writes([&] {
    faults.pwrite = EDQUOT;
    EXPECT_THROW(file.write_at(0, readable("new")), OsError);
    faults.pwrite = 0;
  });
  writes.join();
  file.write_at(3, readable("new"));
  expect_os_error(EDQUOT,
                  "[Errno " + std::to_string(EDQUOT) +
                      "] Disk quota exceeded, when the file was being written: '" + path_ + "'",
                  [&] { file.commit(); });
  EXPECT_EQ(read_file(path_), "old");
}

TEST_F(AtomicFileFaults, SurvivesDirectoriesThatCannotBeFlushed) {
  for (const int error : {EINVAL, ENOSYS, EOPNOTSUPP}) {
    faults.fsync_directory = error;
    EXPECT_EQ(save(path_, "new", /*durable=*/true), Commit::kRenamed);
  }
}

TEST_F(AtomicFileFaults, DoesNotRenameWhatAnotherHostPutInItsPlace) {
  write_file(path_, "old");
  AtomicFile file(path_);
  file.write(pieces_of("new"));
  // As where locks do not reach over the network: the name now leads to somebody's half-written file.
  const std::string temporary = directory_ / directory_.names().front();
  ::unlink(temporary.c_str());
  write_file(temporary, "h");
  expect_os_error(ENOENT,
                  "[Errno 2] the temporary file was removed by someone else during the save: '" + path_ + "'",
                  [&] { file.commit(); });
  EXPECT_EQ(read_file(path_), "old");
}

TEST_F(AtomicFileFaults, FindsTheWholeThatOthersHelpedToWrite) {
  // The name it is kept under is one that only the file in its slot leads to.
  const int code = run_in_child([&] {
    AtomicFile file(path_, true, Order::kByOthers);
    file.write_at(0, readable(pattern(300'000)));
    faults.rename = ENOSYS;
    limit_file_size(100'000);
    file.commit();
  });
  EXPECT_EQ(code, EFBIG);
  EXPECT_EQ(directory_.names().size(), 3U);
  save(path_, "next");
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileFaults, KeepsTheWholeWhenWritingInPlaceFails) {
  const std::string contents = pattern(300'000);
  const int code = run_in_child([&] {
    try {
      AtomicFile file(path_);
      file.write(pieces_of(contents));
      faults.rename = ENOSYS;
      limit_file_size(100'000);
      file.commit();
    } catch (const OsError& error) {
      const std::string temporary = directory_ / directory_.names().front();
      const std::string expected =
          "[Errno 27] File too large; the file is incomplete now, and until the next save '" + temporary +
          "' holds the whole: '" + path_ + "'";
      ::_exit(error.what() == expected ? 0 : 1);
    }
  });
  EXPECT_EQ(code, 0);
  ASSERT_EQ(directory_.names().size(), 2U);
  EXPECT_TRUE(read_file(directory_ / directory_.names().front()) == contents);
  save(path_, "next");
  EXPECT_EQ(directory_.names(), Names{"model"});
}

}  // namespace
}  // namespace torch_safetensors::io
