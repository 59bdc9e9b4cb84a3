#include "io/parallel_read.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace torch_safetensors::io {
namespace {

/// Below this a thread costs more than it saves.
constexpr uint64_t kPerThread = 4 << 20;

/// What a thread takes at a time: large ranges are cut to it, small ones collected up to it.
constexpr uint64_t kChunk = 8 << 20;

constexpr unsigned kMostThreads = 8;

/// Neighbouring ranges that one thread reads.
using Work = std::vector<ReadRange>;

std::vector<Work> cut(std::span<const ReadRange> ranges) {
  std::vector<Work> works(1);
  uint64_t filled = 0;
  for (ReadRange range : ranges) {
    while (!range.into.empty()) {
      if (filled == kChunk) {
        works.emplace_back();
        filled = 0;
      }
      const size_t size = std::min<uint64_t>(range.into.size(), kChunk - filled);
      works.back().push_back({range.offset, range.into.first(size)});
      range = {range.offset + size, range.into.subspan(size)};
      filled += size;
    }
  }
  return works;
}

/// Hands out works until there are none, or one has failed.
class Reader {
 public:
  Reader(const File& file, std::vector<Work> works) : file_(file), works_(std::move(works)) {}

  void run() noexcept {
    try {
      for (size_t i = next_++; i < works_.size(); i = next_++) {
        for (const ReadRange& range : works_[i]) {
          file_.read_at(range.offset, range.into);
        }
      }
    } catch (...) {
      next_ = works_.size();
      const std::lock_guard lock(mutex_);
      if (!error_) {
        error_ = std::current_exception();
      }
    }
  }

  void rethrow() const {
    if (error_) {
      std::rethrow_exception(error_);
    }
  }

 private:
  const File& file_;
  const std::vector<Work> works_;
  std::atomic<size_t> next_ = 0;
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

void read_ranges(const File& file, std::span<const ReadRange> ranges) {
  uint64_t total = 0;
  for (const ReadRange& range : ranges) {
    total += range.into.size();
  }
  const uint64_t wanted = std::min<uint64_t>(
      {total / kPerThread, std::max(1u, std::thread::hardware_concurrency()), kMostThreads});
  Reader reader(file, cut(ranges));
  std::vector<std::thread> threads;
  try {
    while (threads.size() + 1 < wanted) {
      threads.emplace_back([&] { reader.run(); });
    }
  } catch (const std::system_error&) {
    // No more threads to be had: those there are do the work.
  }
  reader.run();
  for (std::thread& thread : threads) {
    thread.join();
  }
  reader.rethrow();
}

}  // namespace torch_safetensors::io
