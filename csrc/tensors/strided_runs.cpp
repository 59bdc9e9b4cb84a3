#include "tensors/strided_runs.h"

#include <algorithm>
#include <cstring>

#include "io/huge_pages.h"
#include "io/progress.h"
#include "io/run_parallel.h"

namespace torch_safetensors::tensors {
namespace {

/// What is read at once. A request costs a system call, and over a network a round trip, in which its
/// bandwidth brings some 100 KiB.
struct RequestSize {
  uint64_t gap;     ///< What is not wanted is read up to this length.
  uint64_t window;  ///< All that one request brings.
};
constexpr RequestSize kLocal{4096, 1 << 20};
constexpr RequestSize kRemote{256 << 10, 4 << 20};

/// Copying takes about 0.1 ms per MiB, and starting a thread about half of that.
constexpr size_t kMinForThreads = 4 << 20;
constexpr size_t kItem = 2 << 20;

/// Calls `visit` with the offset of each run from `first` to `end`.
template <typename Visit>
void for_each_run(const StridedRuns& runs, size_t first, size_t end, Visit visit) {
  std::vector<int64_t> index(runs.sizes.size(), 0);
  uint64_t offset = runs.offset;
  for (size_t dim = index.size(), rest = first; dim-- > 0;) {
    const auto size = static_cast<size_t>(runs.sizes[dim]);
    index[dim] = static_cast<int64_t>(rest % size);
    offset += runs.strides[dim] * index[dim];
    rest /= size;
  }
  for (size_t i = first; i < end; ++i) {
    visit(offset);
    for (size_t dim = index.size(); dim-- > 0;) {
      offset += runs.strides[dim];
      if (++index[dim] < runs.sizes[dim]) {
        break;
      }
      offset -= runs.strides[dim] * runs.sizes[dim];
      index[dim] = 0;
    }
  }
}

/// Collects neighbouring runs of a file and reads them with one system call.
class WindowReader {
 public:
  WindowReader(const io::File& file, uint64_t begin, size_t run_size, std::span<std::byte> into)
      : file_(file),
        size_(file.is_remote() ? kRemote : kLocal),
        begin_(begin),
        run_size_(run_size),
        into_(into) {}

  void add(uint64_t offset) {
    if (!offsets_.empty() && !fits(offset)) {
      flush();
    }
    offsets_.push_back(offset);
  }

  void flush() {
    if (offsets_.empty()) {
      return;
    }
    const uint64_t first = offsets_.front();
    if (offsets_.size() == 1) {
      file_.read_at(begin_ + first, into_.subspan(done_, run_size_));
    } else {
      window_.resize(offsets_.back() + run_size_ - first);
      file_.read_at(begin_ + first, window_);
      for (size_t i = 0; i < offsets_.size(); ++i) {
        std::memcpy(into_.data() + done_ + i * run_size_, window_.data() + (offsets_[i] - first), run_size_);
      }
    }
    done_ += offsets_.size() * run_size_;
    offsets_.clear();
  }

 private:
  bool fits(uint64_t offset) const {
    const uint64_t end = offsets_.back() + run_size_;
    return offset >= offsets_.back() && offset <= end + size_.gap &&
           offset + run_size_ - offsets_.front() <= size_.window;
  }

  const io::File& file_;
  RequestSize size_;
  uint64_t begin_;
  size_t run_size_;
  std::span<std::byte> into_;
  size_t done_ = 0;
  std::vector<uint64_t> offsets_;
  std::vector<std::byte> window_;
};

/// Some runs of one tensor, for one thread.
struct SomeRuns {
  const RunsToRead* read;
  size_t first;
  size_t end;
};

/// Cuts what shall be read into items whose runs lie within about a window.
std::vector<SomeRuns> cut(std::span<const RunsToRead> reads) {
  std::vector<SomeRuns> items;
  for (const RunsToRead& read : reads) {
    const StridedRuns& runs = read.runs;
    const uint64_t stride = runs.strides.empty() ? 1 : std::max<uint64_t>(runs.strides.back(), 1);
    const size_t step = std::max<size_t>(kItem / stride, 1);
    for (size_t first = 0; first < runs.count; first += step) {
      items.push_back({&read, first, std::min(first + step, runs.count)});
    }
  }
  return items;
}

void read_some(const SomeRuns& some) {
  const auto& [file, begin, runs, into] = *some.read;
  WindowReader reader(*file, begin, runs.nbytes, into.subspan(some.first * runs.nbytes));
  for_each_run(runs, some.first, some.end, [&](uint64_t offset) { reader.add(offset); });
  reader.flush();
}

}  // namespace

StridedView dense_view(std::span<const int64_t> sizes) {
  StridedView view{{sizes.begin(), sizes.end()}, std::vector<int64_t>(sizes.size(), 1), 0};
  // Without elements strides mean nothing, and their product may overflow.
  const bool empty = std::ranges::count(sizes, 0) > 0;
  for (size_t dim = empty ? 0 : sizes.size(); dim-- > 1;) {
    view.strides[dim - 1] = view.strides[dim] * sizes[dim];
  }
  return view;
}

std::optional<StridedView> part_view(std::span<const int64_t> sizes, std::span<const int64_t> offsets,
                                     std::span<const int64_t> part) {
  if (offsets.size() != sizes.size() || part.size() != sizes.size()) {
    return std::nullopt;
  }
  StridedView view = dense_view(sizes);
  for (size_t dim = 0; dim < sizes.size(); ++dim) {
    // Without a sum, which may overflow.
    if (offsets[dim] < 0 || part[dim] > sizes[dim] || offsets[dim] > sizes[dim] - part[dim]) {
      return std::nullopt;
    }
    view.sizes[dim] = part[dim];
    view.offset += offsets[dim] * view.strides[dim];
  }
  return view;
}

StridedRuns strided_runs(const StridedView& view, int64_t item_size) {
  if (std::ranges::count(view.sizes, 0) > 0) {
    return {static_cast<size_t>(item_size), 0, 0, {}, {}};  // where it would begin may be anywhere
  }
  StridedRuns runs{static_cast<size_t>(item_size), 1, static_cast<uint64_t>(view.offset * item_size), {}, {}};
  size_t dim = view.sizes.size();
  // The innermost dimensions that lie densely make up a run; those of one element may have any stride.
  while (dim > 0 && (view.sizes[dim - 1] == 1 ||
                     view.strides[dim - 1] * item_size == static_cast<int64_t>(runs.nbytes))) {
    runs.nbytes *= view.sizes[--dim];
  }
  for (size_t outer = 0; outer < dim; ++outer) {
    if (view.sizes[outer] > 1) {
      runs.sizes.push_back(view.sizes[outer]);
      runs.strides.push_back(view.strides[outer] * item_size);
      runs.count *= view.sizes[outer];
    }
  }
  return runs;
}

void copy_runs(std::span<const std::byte> tensor, const StridedRuns& runs, std::span<std::byte> into) {
  const auto copy = [&](size_t first, size_t end) {
    std::byte* to = into.data() + first * runs.nbytes;
    for_each_run(runs, first, end, [&](uint64_t offset) {
      std::memcpy(to, tensor.data() + offset, runs.nbytes);
      to += runs.nbytes;
    });
  };
  if (into.size() < kMinForThreads) {
    copy(0, runs.count);
    return;
  }
  io::HugePages fresh(into);
  const size_t step = (kItem + runs.nbytes - 1) / runs.nbytes;
  io::run_parallel((runs.count + step - 1) / step, io::default_threads(), [&](size_t item) {
    const size_t first = item * step;
    const size_t end = std::min(first + step, runs.count);
    fresh.prepare(into.subspan(first * runs.nbytes, (end - first) * runs.nbytes));
    copy(first, end);
  });
}

void read_runs(const io::File& file, uint64_t begin, const StridedRuns& runs, std::span<std::byte> into) {
  const RunsToRead read{&file, begin, runs, into};
  read_some({&read, 0, runs.count});
}

void read_runs_parallel(std::span<const RunsToRead> reads) {
  size_t nbytes = 0;
  for (const RunsToRead& read : reads) {
    nbytes += read.into.size();
  }
  const std::vector<SomeRuns> items = cut(reads);
  io::Progress* const progress = io::Progress::current();
  io::run_parallel(items.size(), nbytes < kMinForThreads ? 1 : io::default_threads(), [&](size_t i) {
    read_some(items[i]);
    if (progress != nullptr) {
      progress->advance((items[i].end - items[i].first) * items[i].read->runs.nbytes);
    }
  });
}

void write_runs(const io::OpenRanges& file, uint64_t begin, const StridedRuns& runs, uint64_t done,
                std::span<const std::byte> part) {
  if (part.empty()) {
    return;
  }
  // By one thread: local file systems let one write at a time into a file.
  size_t skip = done % runs.nbytes;
  const size_t first = done / runs.nbytes;
  const size_t end = (done + part.size() + runs.nbytes - 1) / runs.nbytes;
  for_each_run(runs, first, end, [&](uint64_t offset) {
    const size_t size = std::min(runs.nbytes - skip, part.size());
    file.write_at(begin + offset + skip, part.first(size));
    part = part.subspan(size);
    skip = 0;
  });
}

}  // namespace torch_safetensors::tensors
