#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/child.h"
#include "io/save.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

/// Who may read and write the file.
class AtomicFileMode : public ::testing::Test {
 protected:
  AtomicFileMode() : umask_(::umask(022)) {}
  ~AtomicFileMode() override { ::umask(umask_); }

  mode_t umask_;
  TestDirectory directory_;
  std::string path_ = directory_ / "model";
};

TEST_F(AtomicFileMode, CreatesAFileLessTheUmask) {
  EXPECT_EQ(save(path_, "new"), Commit::kRenamed);
  EXPECT_EQ(read_file(path_), "new");
  EXPECT_EQ(mode_of(path_), 0644U);
  ::umask(077);
  save(directory_ / "other", "new");
  EXPECT_EQ(mode_of(directory_ / "other"), 0600U);
  EXPECT_EQ(::umask(077), 077U) << "the umask itself was changed";
}

TEST_F(AtomicFileMode, KeepsTheModeOfAnExistingFile) {
  for (const mode_t mode : {0600, 0640, 0444, 0666, 0777, 02755}) {
    write_file(path_, "old");
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    save(path_, "new");
    EXPECT_EQ(mode_of(path_), mode);
    EXPECT_EQ(read_file(path_), "new");
    ::unlink(path_.c_str());
  }
}

TEST_F(AtomicFileMode, KeepsTheModeOfAReadOnlyFileForItsOwner) {
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0777), 0);
  EXPECT_EQ(run_unprivileged([&] {
              save(path_, "old");
              ::chmod(path_.c_str(), 0444);
              save(path_, "new");
            }),
            0);
  EXPECT_EQ(mode_of(path_), 0444U);
  EXPECT_EQ(read_file(path_), "new");
}

TEST_F(AtomicFileMode, IsNeverMoreOpenThanTheFileItReplaces) {
  write_file(path_, "old");
  ASSERT_EQ(::chmod(path_.c_str(), 0600), 0);
  ::umask(0);
  const AtomicFile file(path_);
  for (const std::string& name : directory_.names()) {
    EXPECT_EQ(mode_of(directory_ / name), 0600U) << name;
  }
}

TEST_F(AtomicFileMode, KeepsTheOwner) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can save over files of others";
  }
  write_file(path_, "old");
  ASSERT_EQ(::chown(path_.c_str(), 65534, 65533), 0);
  save(path_, "new");
  struct stat status{};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 65534U);
  EXPECT_EQ(status.st_gid, 65533U);
}

}  // namespace
}  // namespace torch_safetensors::io
