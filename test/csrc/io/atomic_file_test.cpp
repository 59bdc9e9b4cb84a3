#include "io/atomic_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/mapping.h"
#include "io/save.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

using Names = std::vector<std::string>;

class AtomicFileTest : public ::testing::Test {
 protected:
  void expect_refused(int number, const std::string& text, const std::string& path) {
    const size_t before = open_descriptors();
    const Names names = directory_.names();
    expect_os_error(number, "[Errno " + std::to_string(number) + "] " + text + ": '" + path + "'",
                    [&] { save(path, "new"); });
    EXPECT_EQ(open_descriptors(), before);
    EXPECT_EQ(directory_.names(), names);
  }

  TestDirectory directory_;
  std::string path_ = directory_ / "model";
};

TEST_F(AtomicFileTest, AppearsOnlyWhenItIsWhole) {
  write_file(path_, "old");
  AtomicFile file(path_);
  file.write(pieces_of("ne"));
  EXPECT_EQ(read_file(path_), "old");
  file.write(pieces_of("w"));
  EXPECT_EQ(read_file(path_), "old");
  file.commit();
  EXPECT_EQ(read_file(path_), "new");
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileTest, LeavesTheOldFileUnlessItIsCommitted) {
  write_file(path_, "old");
  const size_t before = open_descriptors();
  {
    AtomicFile(path_).write(pieces_of("new"));
  }
  EXPECT_EQ(read_file(path_), "old");
  EXPECT_EQ(directory_.names(), Names{"model"});
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(AtomicFileTest, WritesThroughASymbolicLink) {
  const std::string link = directory_ / "link";
  ASSERT_EQ(::symlink("model", link.c_str()), 0);
  save(link, "one");  // to nothing yet
  EXPECT_EQ(read_file(path_), "one");
  save(link, "two");
  EXPECT_EQ(read_file(path_), "two");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(directory_.names(), (Names{"link", "model"}));
}

TEST_F(AtomicFileTest, BreaksAHardLink) {
  write_file(path_, "old");
  ASSERT_EQ(::link(path_.c_str(), (directory_ / "hard").c_str()), 0);
  save(path_, "new");
  EXPECT_EQ(read_file(directory_ / "hard"), "old");
}

TEST_F(AtomicFileTest, TakesTheLongestName) {
  const std::string path = directory_ / std::string(255, 'n');
  save(path, "new");
  save(path, "newer");
  EXPECT_EQ(read_file(path), "newer");
}

TEST_F(AtomicFileTest, TakesARelativePath) {
  EXPECT_EQ(run_in_child([&] {
              if (::chdir(directory_.path().c_str()) == 0) {
                save("model", "new", /*durable=*/true);
              }
            }),
            0);
  EXPECT_EQ(read_file(path_), "new");
}

TEST_F(AtomicFileTest, LeavesMappingsOfTheOldFileAlone) {
  const Mapping mapping{File(write_file(path_, "old"))};
  AtomicFile file(path_);
  const std::span<const std::byte> source = mapping.bytes();
  file.write({&source, 1});
  file.write(pieces_of("er"));
  file.commit();
  EXPECT_EQ(read_file(path_), "older");
  EXPECT_EQ(static_cast<char>(mapping.bytes()[0]), 'o');
}

TEST_F(AtomicFileTest, RefusesWhatIsNotARegularFile) {
  const std::string fifo = directory_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  expect_refused(EINVAL, "not a regular file", fifo);
  expect_refused(EINVAL, "not a regular file", "/dev/null");
  expect_refused(EISDIR, "Is a directory", directory_.path());
}

TEST_F(AtomicFileTest, ReportsErrorsOfThePathAsItWasGiven) {
  write_file(path_, "old");
  expect_refused(ENOENT, "No such file or directory", "");
  expect_refused(ENOENT, "No such file or directory", directory_ / "none/model");
  expect_refused(ENOTDIR, "Not a directory", directory_ / "model/model");
  expect_refused(ENAMETOOLONG, "File name too long", directory_ / std::string(256, 'n'));
  const std::string link = directory_ / "link";
  ASSERT_EQ(::symlink("none/model", link.c_str()), 0);
  expect_refused(ENOENT, "No such file or directory", link);
  expect_os_error(EINVAL, "[Errno 22] embedded null byte: 'a\\x00'",
                  [] { AtomicFile(std::string("a\0", 2)); });
}

TEST_F(AtomicFileTest, ReportsADirectoryThatMayNotBeWrittenTo) {
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0555), 0);
  EXPECT_EQ(run_unprivileged([&] { save(path_, "new"); }), EACCES);
}

TEST_F(AtomicFileTest, LeavesTheOldFileWhenTheDiskIsFull) {
  write_file(path_, "old");
  const int code = run_in_child([&] {
    const size_t before = open_descriptors();
    limit_file_size(100'000);
    try {
      save(path_, pattern(300'000));
    } catch (const OsError& error) {
      const bool good = error.what() == "[Errno 27] File too large: '" + path_ + "'";
      ::_exit(good && open_descriptors() == before ? error.error_number() : 1);
    }
  });
  EXPECT_EQ(code, EFBIG);
  EXPECT_EQ(read_file(path_), "old");
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileTest, IsWrittenAtAnyPlace) {
  write_file(path_, "old");
  for (const bool durable : {false, true}) {
    AtomicFile file(path_, durable, Order::kAtAnyPlace);
    file.reserve(6);
    file.write_at(3, readable("def"));
    file.write_at(0, readable("abc"));
    EXPECT_NE(read_file(path_), "abcdef");
    file.commit();
    EXPECT_EQ(read_file(path_), "abcdef");
    write_file(path_, "old");
  }
  EXPECT_EQ(directory_.names(), Names{"model"});
}

TEST_F(AtomicFileTest, SaysAtOnceThatThereIsNoRoom) {
  const FaultsGuard guard;
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) {
    faults.fallocate = error;
    AtomicFile file(path_, false, Order::kAtAnyPlace);
    EXPECT_THROW(file.reserve(1), OsError);
  }
  for (const int error : {EOPNOTSUPP, EINTR, EIO}) {
    faults.fallocate = error;
    AtomicFile(path_, false, Order::kAtAnyPlace).reserve(1);
  }
  EXPECT_EQ(directory_.names(), Names{});
}

TEST_F(AtomicFileTest, GivesANewFileTheModeAskedFor) {
  AtomicFile(path_, false, Order::kAppended, 0600).commit();
  EXPECT_EQ(mode_of(path_), 0600);
}

}  // namespace
}  // namespace torch_safetensors::io
