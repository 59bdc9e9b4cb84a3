#include "io/run_parallel.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "io/child.h"

namespace torch_safetensors::io {
namespace {

TEST(RunParallel, RunsEachItemOnce) {
  for (const size_t threads : {0, 1, 2, 8, 100}) {
    for (const size_t items : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(items);
      run_parallel(items, threads, [&](size_t item) { ++calls.at(item); });
      for (const auto& count : calls) {
        ASSERT_EQ(count, 1) << threads << " threads, " << items << " items";
      }
    }
  }
}

TEST(RunParallel, StartsNoThreadForOneItemOrOneThread) {
  std::set<std::thread::id> ids;
  run_parallel(1, 8, [&](size_t) { ids.insert(std::this_thread::get_id()); });
  run_parallel(8, 1, [&](size_t) { ids.insert(std::this_thread::get_id()); });
  EXPECT_EQ(ids, std::set{std::this_thread::get_id()});
}

TEST(RunParallel, UsesThreadsAtOnce) {
  // Ends only if three threads are in there together.
  std::atomic<int> inside{0};
  run_parallel(3, 3, [&](size_t) {
    ++inside;
    while (inside < 3) {
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(inside, 3);
}

TEST(RunParallel, ThrowsTheFirstExceptionAndBeginsNoMore) {
  std::atomic<int> calls{0};
  const auto run = [&] {
    run_parallel(100'000, 4, [&](size_t item) {
      ++calls;
      if (item == 10) {
        throw std::out_of_range("item 10");
      }
      std::this_thread::yield();
    });
  };
  EXPECT_THROW(run(), std::out_of_range);
  EXPECT_LT(calls, 100'000);
}

TEST(RunParallel, ThrowsOneOfManyExceptions) {
  EXPECT_THROW(run_parallel(100, 8, [](size_t) { throw std::out_of_range("each"); }), std::out_of_range);
}

TEST(RunParallel, DoesWithoutThreadsWhereThereAreNone) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer itself ends the program when it gets no thread";
#endif
  constexpr int kNoLimit = 77;
  const int code = run_unprivileged([] {
    const rlimit none{1, 1};  // as a container's limit; root has none
    ::setrlimit(RLIMIT_NPROC, &none);
    try {
      std::thread([] {}).join();
      ::_exit(kNoLimit);
    } catch (const std::system_error&) {
    }
    std::atomic<int> calls{0};
    run_parallel(100, 8, [&](size_t) { ++calls; });
    ::_exit(calls == 100 ? 0 : 2);
  });
  if (code == kNoLimit) {
    GTEST_SKIP() << "this system does not limit the number of threads";
  }
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace torch_safetensors::io
