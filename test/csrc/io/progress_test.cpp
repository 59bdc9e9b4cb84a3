#include "io/progress.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "io/run_parallel.h"

namespace torch_safetensors::io {
namespace {

using Calls = std::vector<std::pair<uint64_t, uint64_t>>;

class ProgressTest : public ::testing::Test {
 protected:
  ProgressTest() : outer_(exchange_report(&report_)) {}
  ~ProgressTest() override { exchange_report(outer_); }

  Calls calls_;
  const Report report_ = [this](uint64_t done, uint64_t total) { calls_.emplace_back(done, total); };
  const Report* outer_;
};

TEST_F(ProgressTest, GoesFromNothingToAll) {
  {
    Progress progress(10);
    EXPECT_EQ(Progress::current(), &progress);
    progress.advance(4);
    progress.advance(6);
    progress.finish();
  }
  EXPECT_EQ(calls_, (Calls{{0, 10}, {4, 10}, {10, 10}}));
  EXPECT_EQ(Progress::current(), nullptr);
}

TEST_F(ProgressTest, IsDoneWhereNothingHadToBe) {
  Progress(7).finish();
  Progress(0).finish();
  EXPECT_EQ(calls_, (Calls{{0, 7}, {7, 7}, {0, 0}}));
}

TEST_F(ProgressTest, NeverSaysMoreThanAll) {
  Progress progress(5);
  progress.advance(9);
  progress.finish();
  EXPECT_EQ(calls_, (Calls{{0, 5}, {5, 5}}));
}

TEST_F(ProgressTest, CountsWhatIsDoneWithinIt) {
  Progress outer(10);
  {
    Progress inner(3);
    Progress::current()->advance(3);
    inner.finish();
  }
  EXPECT_EQ(Progress::current(), &outer);
  EXPECT_EQ(calls_, (Calls{{0, 10}, {3, 10}}));
}

TEST_F(ProgressTest, IsReportedByTheThreadThatBegan) {
  const std::thread::id here = std::this_thread::get_id();
  std::vector<std::thread::id> threads;
  const Report report = [&](uint64_t, uint64_t) { threads.push_back(std::this_thread::get_id()); };
  exchange_report(&report);
  Progress progress(1000);
  run_parallel(1000, 4, [&](size_t) { progress.advance(1); });
  progress.finish();
  EXPECT_GE(threads.size(), 2);
  for (const std::thread::id& thread : threads) {
    EXPECT_EQ(thread, here);
  }
}

TEST_F(ProgressTest, IsNothingToOtherThreads) {
  const Progress progress(1);
  std::thread([] { EXPECT_EQ(Progress::current(), nullptr); }).join();
}

TEST_F(ProgressTest, IsNothingWithoutAReport) {
  exchange_report(nullptr);
  Progress progress(10);
  EXPECT_EQ(Progress::current(), nullptr);
  progress.finish();
  EXPECT_EQ(calls_, Calls{});
}

TEST_F(ProgressTest, IsNothingWithinAReport) {
  const Report report = [&](uint64_t done, uint64_t total) {
    EXPECT_EQ(Progress::current(), nullptr);
    Progress(100).finish();
    calls_.emplace_back(done, total);
  };
  exchange_report(&report);
  Progress progress(2);
  progress.advance(1);
  EXPECT_EQ(calls_, (Calls{{0, 2}, {1, 2}}));
  EXPECT_EQ(Progress::current(), &progress);
}

TEST_F(ProgressTest, IsStoppedByWhatTheReportThrows) {
  bool throws = true;
  const Report report = [&](uint64_t, uint64_t) {
    if (throws) {
      throw std::runtime_error("stop");
    }
  };
  exchange_report(&report);
  EXPECT_THROW(Progress(1), std::runtime_error);
  EXPECT_EQ(Progress::current(), nullptr);
  throws = false;
  Progress progress(1);
  throws = true;
  EXPECT_THROW(progress.advance(1), std::runtime_error);
  EXPECT_EQ(Progress::current(), &progress);
}

}  // namespace
}  // namespace torch_safetensors::io
