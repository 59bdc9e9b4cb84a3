#include "io/open_ranges.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <optional>

#include "io/atomic_file.h"
#include "io/child.h"
#include "io/file_lock.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

TEST(OpenRanges, WriteToWhatAnotherProcessCommits) {
  const TestDirectory directory;
  const std::string path = directory / "f";
  AtomicFile file(path, false, Order::kByOthers);
  file.extend(6);
  file.publish_to_hosts();
  EXPECT_EQ(read_file(file.temporary_path()), std::string(6, '\0'));
  EXPECT_EQ(run_in_child([&] {
              const OpenRanges ranges(file.temporary_path(), path);
              ranges.write_at(4, readable("ef"));
              ranges.finish(true);
            }),
            0);
  file.write_at(0, readable("abcd"));
  EXPECT_EQ(file.commit(), Commit::kRenamed);
  EXPECT_EQ(read_file(path), "abcdef");
}

TEST(OpenRanges, LeaveTheLockToTheMaker) {
  const TestDirectory directory;
  AtomicFile file(directory / "f", false, Order::kByOthers);
  {
    const OpenRanges ranges(file.temporary_path(), "f");
  }
  AtomicFile other(directory / "f");  // would remove the file if it took it for dead
  EXPECT_NE(file.temporary_path(), other.temporary_path());
  EXPECT_TRUE(std::filesystem::exists(file.temporary_path()));
}

TEST(OpenRanges, ThatComeLateDoNotReachTheNextSave) {
  const TestDirectory directory;
  const std::string path = directory / "f";
  std::optional<AtomicFile> aborted(std::in_place, path, false, Order::kByOthers);
  const std::string late = aborted->temporary_path();
  aborted.reset();
  AtomicFile next(path, false, Order::kByOthers);
  next.extend(3);
  EXPECT_THROW(OpenRanges(late, path), OsError);
  next.commit();
  EXPECT_EQ(read_file(path), std::string(3, '\0'));
}

TEST(OpenRanges, OfAFileThatIsGoneNameBoth) {
  const TestDirectory directory;
  try {
    const OpenRanges ranges(directory / "gone", "model");
    ADD_FAILURE() << "no error";
  } catch (const OsError& error) {
    EXPECT_EQ(error.error_number(), ENOENT);
    EXPECT_EQ(std::string(error.what()), "[Errno 2] No such file or directory, of its temporary file '" +
                                             (directory / "gone") + "': 'model'");
  }
}

}  // namespace
}  // namespace torch_safetensors::io
