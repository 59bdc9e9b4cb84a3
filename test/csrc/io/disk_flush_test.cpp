#include "io/disk_flush.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "io/child.h"
#include "io/descriptor.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

class DiskFlush : public ::testing::Test {
 protected:
  FaultsGuard guard_;
  TestDirectory directory_;
  Descriptor file_{::open((directory_ / "f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
};

TEST_F(DiskFlush, FlushesAFile) { EXPECT_NO_THROW(flush_file(file_.get(), "given")); }

TEST_F(DiskFlush, ReportsWhatAFileLost) {
  faults.fsync_file = EIO;
#if defined(__linux__)
  expect_os_error(EIO, "[Errno 5] Input/output error: 'given'", [&] { flush_file(file_.get(), "given"); });
#endif
}

TEST_F(DiskFlush, FlushesDirectories) {
  flush_directory(directory_.path() + "/", "given");
  flush_directory("", "given");
}

TEST_F(DiskFlush, SurvivesDirectoriesThatHaveNothingToFlush) {
  for (const int error : {EINVAL, ENOSYS, EOPNOTSUPP, ENOTSUP}) {
    faults.fsync_directory = error;
    EXPECT_NO_THROW(flush_directory(directory_.path() + "/", "given")) << error;
  }
}

TEST_F(DiskFlush, ReportsWhatADirectoryLost) {
#if defined(__linux__)
  faults.fsync_directory = EIO;
  expect_os_error(EIO, "[Errno 5] Input/output error: 'given'",
                  [&] { flush_directory(directory_.path() + "/", "given"); });
#endif
  expect_os_error(ENOENT, "[Errno 2] No such file or directory: 'given'",
                  [&] { flush_directory(directory_ / "none/", "given"); });
}

TEST_F(DiskFlush, FlushesADirectoryThatMayNotBeRead) {
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0333), 0);
  EXPECT_EQ(run_unprivileged([&] { flush_directory(directory_.path() + "/", "given"); }), 0);
}

TEST_F(DiskFlush, ReportsWhatOnlyCloseSays) {
  faults.close = ENOSPC;
  expect_os_error(ENOSPC, "[Errno 28] No space left on device: 'given'",
                  [&] { check_delayed_errors(file_.get(), "given"); });
}

TEST_F(DiskFlush, LeavesTheDescriptorOpen) {
  const size_t before = open_descriptors();
  check_delayed_errors(file_.get(), "given");
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(::write(file_.get(), "x", 1), 1);
}

TEST_F(DiskFlush, AsksFsyncWhereCloseGivesNoAnswer) {
  faults.close = EINTR;
  check_delayed_errors(file_.get(), "given");
#if defined(__linux__)
  EXPECT_EQ(faults.fsyncs, 1);
#endif
}

}  // namespace
}  // namespace torch_safetensors::io
