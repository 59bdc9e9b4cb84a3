#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/file.h"

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

/// Packs the runs of `tensor` into `into`, which has `count * nbytes` bytes.
void copy_runs(std::span<const std::byte> tensor, const StridedRuns& runs, std::span<std::byte> into);

/// The same from a file in which the tensor begins at `begin`. Reads what the runs cover, and gaps between
/// them only where these are shorter than a page, which costs less than another system call.
void read_runs(const io::File& file, uint64_t begin, const StridedRuns& runs, std::span<std::byte> into);

}  // namespace torch_safetensors::tensors
