#include "io/parallel_read.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "io/child.h"
#include "io/expect_os_error.h"
#include "io/faults.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {
namespace {

/// Reads stretches of the file of the given sizes, one after the other, and returns all.
std::string read_consecutive(const File& file, const std::vector<size_t>& sizes) {
  size_t total = 0;
  for (const size_t size : sizes) {
    total += size;
  }
  std::string bytes(total, '\0');
  std::vector<ReadRange> ranges;
  size_t offset = 0;
  for (const size_t size : sizes) {
    ranges.push_back({offset, writable(bytes).subspan(offset, size)});
    offset += size;
  }
  read_ranges(file, ranges);
  return bytes;
}

/// As the system counts them.
uint64_t bytes_read_by_this_thread() {
  std::ifstream counts("/proc/thread-self/io");
  std::string name;
  uint64_t bytes = 0;
  counts >> name >> bytes;
  return bytes;
}

class ReadRanges : public ::testing::Test {
 protected:
  File make(size_t size) {
    contents_ = pattern(size);
    return File(write_file(directory_ / "f", contents_));
  }

  TestDirectory directory_;
  std::string contents_;
};

TEST_F(ReadRanges, ReadsNothing) {
  const File file = make(0);
  EXPECT_NO_THROW(read_ranges(file, {}));
  EXPECT_EQ(read_consecutive(file, {0, 0, 0}), "");
}

TEST_F(ReadRanges, ReadsEverySize) {
  constexpr size_t kMiB = 1 << 20;
  const File file = make(40 * kMiB + 17);
  for (const size_t size :
       {size_t{1}, kMiB, 4 * kMiB - 1, 4 * kMiB, 4 * kMiB + 1, 8 * kMiB, 33 * kMiB + 5, 40 * kMiB + 17}) {
    ASSERT_TRUE(read_consecutive(file, {size}) == contents_.substr(0, size)) << size;
  }
}

TEST_F(ReadRanges, ReadsLargeAndSmallAndEmptyRanges) {
  constexpr size_t kMiB = 1 << 20;
  const File file = make(30 * kMiB);
  const std::vector<size_t> sizes{0, 1, 0, 9 * kMiB + 3, 2, 0, 1 * kMiB, 1 * kMiB, 7, 12 * kMiB, 0};
  EXPECT_TRUE(read_consecutive(file, sizes) == contents_.substr(0, 23 * kMiB + 13));
}

TEST_F(ReadRanges, ReadsAHundredThousandTinyRanges) {
  const File file = make(100'000 * 60);  // above the limit for threads
  EXPECT_TRUE(read_consecutive(file, std::vector<size_t>(100'000, 60)) == contents_);
  EXPECT_TRUE(read_consecutive(file, std::vector<size_t>(100'000, 16)) == contents_.substr(0, 1'600'000));
}

TEST_F(ReadRanges, ReadsWithAsManyThreadsAsAsked) {
  constexpr size_t kMiB = 1 << 20;
  const File file = make(24 * kMiB);
  for (const size_t threads : {1, 2, 5}) {
    std::string bytes(24 * kMiB, '\0');
    const ReadRange range{0, writable(bytes)};
    const uint64_t before = bytes_read_by_this_thread();
    read_ranges(file, {&range, 1}, nullptr, threads);
    if (threads == 1) {  // of several, nobody knows which reads what
      EXPECT_GE(bytes_read_by_this_thread() - before, 24 * kMiB);
    }
    EXPECT_TRUE(bytes == contents_) << threads;
  }
}

TEST_F(ReadRanges, ReadsInAnyOrderWithGapsAndOverlaps) {
  const File file = make(12 << 20);
  std::mt19937 random(1);
  std::vector<std::string> results(2000);
  std::vector<ReadRange> ranges;
  for (std::string& result : results) {
    result.resize(random() % 9000);
    ranges.push_back({random() % (file.size() - result.size()), writable(result)});
  }
  read_ranges(file, ranges);
  for (size_t i = 0; i < ranges.size(); ++i) {
    ASSERT_TRUE(results[i] == contents_.substr(ranges[i].offset, results[i].size())) << i;
  }
}

TEST_F(ReadRanges, ReadsInTurnWhatFollowsAndWhatDoesNot) {
  const File file = make(3 << 20);
  std::mt19937 random(4);
  std::vector<std::string> results(3000);
  std::vector<ReadRange> ranges;
  uint64_t offset = 0;
  for (std::string& result : results) {
    result.resize(random() % 900);
    ranges.push_back({offset, writable(result)});
    offset += result.size() + (random() % 20 == 0 ? random() % 300 : 0);
  }
  std::swap(ranges[5], ranges[1700]);
  read_in_turn(file, ranges);
  for (const auto& [begin, into] : ranges) {
    const std::string_view text(reinterpret_cast<const char*>(into.data()), into.size());
    ASSERT_TRUE(text == std::string_view(contents_).substr(begin, into.size())) << begin;
  }
  read_in_turn(file, {});
}

TEST_F(ReadRanges, ReadsOnManyThreadsAtOnce) {
  const File file = make(20 << 20);
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] { good += read_consecutive(file, {20 << 20}) == contents_; });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(good, 6);
}

#if defined(__linux__)
TEST_F(ReadRanges, AsksARemoteServerForMuchAtOnce) {
  const File file = make(20 << 20);
  const FaultsGuard guard;
  faults.fstatfs = 0x6969;  // NFS
  std::mutex mutex;
  std::condition_variable changed;
  int waiting = 0;
  bool together = true;
  faults.before_preadv = [&] {
    std::unique_lock lock(mutex);
    ++waiting;
    changed.notify_all();
    together = changed.wait_for(lock, std::chrono::seconds(10), [&] { return waiting >= 16; }) && together;
  };
  EXPECT_TRUE(read_consecutive(file, {20 << 20}) == contents_);
  EXPECT_TRUE(together);
}
#endif

TEST_F(ReadRanges, SaysWhereATruncatedFileEnded) {
  const File file = make(20 << 20);
  const size_t before = open_descriptors();
  ASSERT_EQ(::truncate(file.path().c_str(), 1000), 0);
  expect_os_error(EIO,
                  "[Errno 5] file ended at byte 1000 while reading up to byte 2000: "
                  "it was truncated after it was opened: '" +
                      file.path() + "'",
                  [&] { read_consecutive(file, {2000}); });
  EXPECT_THROW(read_consecutive(file, {20 << 20}), OsError);
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(ReadRanges, WorksInAForkedChild) {
  const File file = make(20 << 20);
  const auto read = [&] {
    if (read_consecutive(file, {20 << 20}) != contents_) {
      throw std::runtime_error("read something else");
    }
  };
  read();
  EXPECT_EQ(run_in_child(read), 0);
}

TEST_F(ReadRanges, SurvivesAForkInTheMiddle) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizers' own locks do not survive a fork of a program with several threads";
#endif
  const File file = make(20 << 20);
  std::atomic<bool> stop{false};
  std::atomic<bool> good{true};
  std::thread reader([&] {
    while (!stop) {
      good = good && read_consecutive(file, {20 << 20}) == contents_;
    }
  });
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(run_in_child([&] { read_consecutive(file, {20 << 20}); }), 0);
  }
  stop = true;
  reader.join();
  EXPECT_TRUE(good);
}

}  // namespace
}  // namespace torch_safetensors::io
