#include "io/parallel_read.h"

#include <algorithm>
#include <array>
#include <vector>

#include "io/progress.h"
#include "io/run_parallel.h"
#include "io/vectored_io.h"

namespace torch_safetensors::io {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// Copying out of the page cache takes about 0.1 ms per MiB, starting a thread about half of that.
constexpr size_t kMinForThreads = 4 * kMiB;

/// A thread that waits for a server needs no core, and servers answer many at once.
constexpr size_t kRemoteThreads = 16;

/// Work is handed out in items of this size: small, so that no thread is left with much to do at the end,
/// yet large, so that a disk sees long reads.
constexpr size_t kMinItem = kMiB;
constexpr size_t kMaxItem = 8 * kMiB;

/// Where an item of work begins: so many bytes into that range.
struct Position {
  size_t range;
  size_t skipped;
};

/// Pieces that follow one another in the file, collected for one system call.
class Batch {
 public:
  explicit Batch(const File& file) : file_(file) {}

  void add(uint64_t offset, std::span<std::byte> into) {
    if (into.empty()) {
      return;
    }
    if (count_ == kMaxPieces || offset != end_) {
      flush();
      begin_ = end_ = offset;
    }
    pieces_[count_++] = {into.data(), into.size()};
    end_ += into.size();
  }

  void flush() {
    read_scattered(file_, begin_, {pieces_.data(), count_});
    count_ = 0;
    begin_ = end_;
  }

 private:
  const File& file_;
  std::array<iovec, kMaxPieces> pieces_;
  size_t count_ = 0;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
};

/// The beginnings of the items that the ranges are cut into, whatever the ranges' own sizes.
std::vector<Position> cut(std::span<const ReadRange> ranges, size_t item_size) {
  std::vector<Position> items;
  size_t room = 0;  // left in the last item
  for (size_t i = 0; i < ranges.size(); ++i) {
    const size_t size = ranges[i].into.size();
    size_t done = 0;
    while (size - done > room) {
      done += room;
      items.push_back({i, done});
      room = item_size;
    }
    room -= size - done;
  }
  return items;
}

void read_item(const File& file, std::span<const ReadRange> ranges, Position at, size_t size,
               HugePages* fresh, Progress* progress) {
  Batch batch(file);
  size_t read = 0;
  while (size > 0 && at.range < ranges.size()) {
    const ReadRange& range = ranges[at.range];
    const auto rest = range.into.subspan(at.skipped);
    const auto part = rest.first(std::min(rest.size(), size));
    if (fresh != nullptr) {
      fresh->prepare(part);
    }
    batch.add(range.offset + at.skipped, part);
    size -= part.size();
    read += part.size();
    at = {at.range + 1, 0};
  }
  batch.flush();
  if (progress != nullptr) {
    progress->advance(read);
  }
}

void read_in_order(const File& file, std::span<const ReadRange> ranges, HugePages* fresh,
                   std::optional<size_t> asked) {
  size_t total = 0;
  for (const ReadRange& range : ranges) {
    total += range.into.size();
  }
  Progress* const progress = Progress::current();
  if (total < kMinForThreads) {
    read_item(file, ranges, {0, 0}, total, fresh, progress);
    return;
  }
  const size_t threads = asked.value_or(file.is_remote() ? kRemoteThreads : default_threads());
  const size_t item_size = std::clamp(total / (4 * threads), kMinItem, kMaxItem);
  const std::vector<Position> items = cut(ranges, item_size);
  run_parallel(items.size(), threads,
               [&](size_t item) { read_item(file, ranges, items[item], item_size, fresh, progress); });
}

}  // namespace

void read_in_turn(const File& file, std::span<const ReadRange> ranges) {
  Batch batch(file);
  for (const ReadRange& range : ranges) {
    batch.add(range.offset, range.into);
  }
  batch.flush();
}

void read_ranges(const File& file, std::span<const ReadRange> ranges, HugePages* fresh,
                 std::optional<size_t> threads) {
  const auto by_offset = [](const ReadRange& a, const ReadRange& b) { return a.offset < b.offset; };
  if (std::is_sorted(ranges.begin(), ranges.end(), by_offset)) {
    read_in_order(file, ranges, fresh, threads);
    return;
  }
  // Names are asked for in any order; in the file's, neighbours share a system call, and disks read ahead.
  std::vector<ReadRange> sorted(ranges.begin(), ranges.end());
  std::sort(sorted.begin(), sorted.end(), by_offset);
  read_in_order(file, sorted, fresh, threads);
}

}  // namespace torch_safetensors::io
