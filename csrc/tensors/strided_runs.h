#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "io/file.h"
#include "io/open_ranges.h"

namespace torch_safetensors::tensors {

/// A range of a dense tensor, in elements: what torch calls sizes, strides and storage offset.
struct StridedView {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t offset;
};

/// The same as runs of adjacent bytes, all of one length, in the order of the view's elements.
struct StridedRuns {
  size_t nbytes;                 ///< Bytes of one run.
  size_t count;                  ///< Number of runs; 0 for a view without elements.
  uint64_t offset;               ///< Where the first begins, from the start of the tensor.
  std::vector<int64_t> sizes;    ///< Dimensions over which the runs are spread, outermost first.
  std::vector<int64_t> strides;  ///< Their strides in bytes.
};

StridedRuns strided_runs(const StridedView& view, int64_t item_size);

/// All of a dense tensor of these sizes.
StridedView dense_view(std::span<const int64_t> sizes);

/// The part of a dense tensor that begins at `offsets` and has the sizes `part`; nothing where there is none.
std::optional<StridedView> part_view(std::span<const int64_t> sizes, std::span<const int64_t> offsets,
                                     std::span<const int64_t> part);

/// Packs the runs of `tensor` into `into`, which has `count * nbytes` bytes.
void copy_runs(std::span<const std::byte> tensor, const StridedRuns& runs, std::span<std::byte> into);

/// The same from a file in which the tensor begins at `begin`. Reads what the runs cover, and gaps between
/// them only where these cost less than another request: shorter than a page, or 256 KiB over a network.
void read_runs(const io::File& file, uint64_t begin, const StridedRuns& runs, std::span<std::byte> into);

/// Runs of a file, and where they shall go.
struct RunsToRead {
  const io::File* file;
  uint64_t begin;
  StridedRuns runs;
  std::span<std::byte> into;
};

/// `read_runs` of each, together; large amounts with several threads that end before it returns. Tells
/// Progress.
void read_runs_parallel(std::span<const RunsToRead> reads);

/// Writes `part` of the packed runs, which follows `done` bytes of them, to a file in which the tensor begins
/// at `begin`. Never touches what lies between the runs.
void write_runs(const io::OpenRanges& file, uint64_t begin, const StridedRuns& runs, uint64_t done,
                std::span<const std::byte> part);

}  // namespace torch_safetensors::tensors
