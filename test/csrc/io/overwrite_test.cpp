#include "io/overwrite.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/mapping.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class Overwrite : public ::testing::Test {
 protected:
  void overwrite(bool durable = false) {
    copy_file(source_.descriptor(), open_to_overwrite(target_, EPERM, "given"), durable, "given");
  }

  FaultsGuard guard_;
  TestDirectory directory_;
  std::string contents_ = pattern(5'000'000);  // more than one buffer
  File source_{write_file(directory_ / "source", contents_)};
  std::string target_ = directory_ / "target";
};

TEST_F(Overwrite, CreatesTheTarget) {
  overwrite();
  EXPECT_TRUE(read_file(target_) == contents_);
}

TEST_F(Overwrite, ReplacesAllOfALongerFile) {
  write_file(target_, std::string(6'000'000, 'x'));
  overwrite();
  EXPECT_TRUE(read_file(target_) == contents_);
}

TEST_F(Overwrite, KeepsTheFileWithItsModeAndOtherNames) {
  write_file(target_, "old");
  ASSERT_EQ(::chmod(target_.c_str(), 0604), 0);
  ASSERT_EQ(::link(target_.c_str(), (directory_ / "hard").c_str()), 0);
  overwrite();
  EXPECT_EQ(mode_of(target_), 0604U);
  EXPECT_TRUE(read_file(directory_ / "hard") == contents_);
}

TEST_F(Overwrite, FlushesOnRequest) {
  overwrite(/*durable=*/true);
#if defined(__linux__)
  EXPECT_EQ(faults.fsyncs, 1);
#endif
}

#if defined(__linux__)  // elsewhere an existing file is never overwritten, as it may be mapped
TEST_F(Overwrite, EmptiesTheTargetInAnotherWayWithoutFtruncate) {
  write_file(target_, std::string(6'000'000, 'x'));
  faults.ftruncate = ENOSYS;
  overwrite();
  EXPECT_TRUE(read_file(target_) == contents_);
}
#endif

TEST_F(Overwrite, RefusesAMappedTarget) {
  const Mapping mapping{File(write_file(target_, "old"))};
  const size_t before = open_descriptors();
  expect_os_error(EPERM,
                  "[Errno 1] Operation not permitted; the file cannot be renamed into place, nor overwritten "
                  "while this process has it mapped; save under another name: 'given'",
                  [&] { overwrite(); });
  EXPECT_EQ(read_file(target_), "old");
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(Overwrite, RefusesWhatIsNotARegularFile) {
  ASSERT_EQ(::mkfifo(target_.c_str(), 0600), 0);
  const Descriptor reader(::open(target_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  expect_os_error(EINVAL, "[Errno 22] not a regular file: 'given'", [&] { overwrite(); });
}

TEST_F(Overwrite, RefusesALink) {
  ASSERT_EQ(::symlink("source", target_.c_str()), 0);
  EXPECT_THROW(overwrite(), OsError);
  EXPECT_TRUE(read_file(directory_ / "source") == contents_);
}

TEST_F(Overwrite, ReportsTheErrorOfClose) {
  Descriptor target = open_to_overwrite(target_, EPERM, "given");
  faults.close = EDQUOT;
  expect_os_error(EDQUOT, "[Errno " + std::to_string(EDQUOT) + "] Disk quota exceeded: 'given'",
                  [&] { copy_file(source_.descriptor(), std::move(target), false, "given"); });
}

}  // namespace
}  // namespace torch_safetensors::io
