#include "io/direct_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <vector>

#include "io/descriptor.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

class DirectWriterTest : public ::testing::Test {
 protected:
  /// Appends `contents_` in pieces of the given sizes, over and over, so many of them at a time.
  void write(const std::vector<size_t>& sizes, size_t at_a_time = 3) {
    const Descriptor file(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    DirectWriter writer(file.get(), path_);
    std::vector<std::span<const std::byte>> pieces;
    size_t begin = 0;
    for (size_t i = 0; begin < contents_.size(); ++i) {
      const size_t size = std::min(sizes[i % sizes.size()], contents_.size() - begin);
      pieces.push_back(readable(contents_).subspan(begin, size));
      begin += size;
      if (pieces.size() == at_a_time) {
        writer.append(pieces);
        pieces.clear();
      }
    }
    writer.append(pieces);
    writer.finish();
    EXPECT_EQ(::lseek(file.get(), 0, SEEK_CUR), static_cast<off_t>(contents_.size()));
#if defined(__linux__)
    EXPECT_EQ(::fcntl(file.get(), F_GETFL) & O_DIRECT, 0);
#endif
  }

  void expect_writes(const std::vector<size_t>& sizes, size_t at_a_time = 3) {
    write(sizes, at_a_time);
    EXPECT_TRUE(read_file(path_) == contents_) << sizes.front() << " by " << at_a_time;
  }

  FaultsGuard guard_;
  TestDirectory directory_;
  std::string path_ = directory_ / "f";
  std::string contents_ = pattern(41 * kMiB + 4711);
};

TEST_F(DirectWriterTest, WritesNothing) {
  contents_.clear();
  expect_writes({1});
}

TEST_F(DirectWriterTest, WritesPiecesOfEverySize) {
  for (const size_t size : {kMiB - 1, 8 * kMiB, 8 * kMiB + 1, 41 * kMiB + 4711}) {
    expect_writes({size}, 1);
    expect_writes({size}, 1000);
  }
  expect_writes({1, 0, 4096, 17 * kMiB, 4095, 0, 8 * kMiB, 333});
}

TEST_F(DirectWriterTest, WritesFilesThatEndAtAndBesideABlock) {
  for (const size_t size : {size_t{1}, 4096UL, 8 * kMiB - 1, 8 * kMiB, 8 * kMiB + 1, 16 * kMiB, 24 * kMiB}) {
    contents_ = pattern(size);
    expect_writes({size});
    expect_writes({5 * kMiB, 7}, 1);
  }
}

TEST_F(DirectWriterTest, WritesRandomPieces) {
  std::mt19937 random(1);
  for (int i = 0; i < 5; ++i) {
    std::vector<size_t> sizes(20);
    std::generate(sizes.begin(), sizes.end(), [&] { return random() % (size_t{1} << (random() % 25)) + 1; });
    expect_writes(sizes, 1 + random() % 5);
  }
}

#if defined(__linux__)
TEST_F(DirectWriterTest, GoesPastThePageCacheWhereItCan) {
  expect_writes({contents_.size()});
  // The folder may lie on a file system that cannot.
  EXPECT_TRUE(faults.direct_pwrites == 5 || faults.direct_pwrites <= 2) << faults.direct_pwrites;
}

TEST_F(DirectWriterTest, DoesWithout) {
  faults.set_flags = EINVAL;
  expect_writes({3 * kMiB});
  EXPECT_EQ(faults.direct_pwrites, 0);
}

TEST_F(DirectWriterTest, DoesWithoutWhereWritesAreRefused) {
  faults.direct_pwrite = EINVAL;
  expect_writes({3 * kMiB});
  EXPECT_LE(faults.direct_pwrites, 2);
  expect_writes({41 * kMiB});
}

TEST_F(DirectWriterTest, RefusalsThatGoOnAreErrors) {
  faults.pwrite = EINVAL;
  expect_os_error(EINVAL, "[Errno 22] Invalid argument: '" + path_ + "'", [&] { write({41 * kMiB}); });
}

TEST_F(DirectWriterTest, DoesWithoutSpaceInOneGo) {
  for (const int error : {EOPNOTSUPP, ENOSPC, EINTR}) {
    faults.fallocate = error;
    expect_writes({13 * kMiB});
  }
}

TEST_F(DirectWriterTest, GoesOnWhereAWriteWasCutShort) {
  for (const int cuts : {1, 2, 7}) {
    faults.pwrite_cuts = cuts;
    expect_writes({3 * kMiB});
    faults.pwrite_cuts = cuts;
    expect_writes({41 * kMiB});
  }
}

TEST_F(DirectWriterTest, GoesOnAfterASignal) {
  faults.pwrite_interrupts = 3;
  expect_writes({41 * kMiB});
}

TEST_F(DirectWriterTest, ReportsWhatTheDiskSays) {
  const std::string path = "'" + path_ + "'";
  for (const size_t room : {size_t{0}, 9 * kMiB, 35 * kMiB}) {
    faults.pwrite = ENOSPC;
    faults.pwrite_room = static_cast<long>(room);
    expect_os_error(ENOSPC, "[Errno 28] No space left on device: " + path, [&] { write({41 * kMiB}); });
    faults.pwrite = EIO;
    faults.pwrite_room = static_cast<long>(room);
    expect_os_error(EIO, "[Errno 5] Input/output error: " + path, [&] { write({5 * kMiB}); });
  }
}

TEST_F(DirectWriterTest, IsWorthWhileOnDisks) {
  const Descriptor file(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  faults.fstatfs = 0xEF53;  // ext4
  EXPECT_TRUE(DirectWriter::is_worth_while(file.get()));
  for (const long magic : {0x01021994L /* tmpfs */, 0x6969L /* NFS */, 0L /* unknown */}) {
    faults.fstatfs = magic;
    EXPECT_FALSE(DirectWriter::is_worth_while(file.get()));
  }
}
#endif

}  // namespace
}  // namespace torch_safetensors::io
