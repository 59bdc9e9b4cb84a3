#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "format/checksum.h"
#include "io/huge_pages.h"
#include "tensors/python_load.h"
#include "tensors/source_header.h"

namespace torch_safetensors::tensors {

/// `torch.classes.safetensors._PiecewiseLoad`: tensors whose bytes the Python package brings, piece by piece:
/// it asks for the next piece, fills the memory it is given and hands it back. Safe to use from several
/// threads. Memory for tensors on the CPU is allocated at once where the size of the source bounds it;
/// otherwise when it is asked for, so that a header that claims anything costs nothing, and what goes to
/// another device is not kept here longer than it has to be.
class PiecewiseLoad : public torch::CustomClassHolder {
 public:
  /// All tensors, or those named, to one device, or each to one of as many as there are names. Pieces have at
  /// most `piece_size` bytes; where at most `max_gap` bytes that nobody wants lie between two tensors, one
  /// piece brings both. With `verify`, `take` throws unless the tensors have the checksums that the header
  /// records. Throws SafetensorError: a name that is not there, a dtype that torch does not have, no
  /// checksums.
  PiecewiseLoad(c10::intrusive_ptr<SourceHeader> header, const std::optional<std::vector<std::string>>& names,
                const std::vector<c10::Device>& devices, bool verify, int64_t piece_size, int64_t max_gap);

  /// How many threads are of use: the keyword or the environment variable (transfer_options.h) or else
  /// `otherwise`, but no more than there are pieces.
  int64_t threads(std::optional<int64_t> threads, int64_t otherwise) const;

  /// Where a piece begins in the source, and the memory for it: the tensor's own where it lies in one.
  /// Nothing once all were handed out. Pieces come in the order of the source.
  std::optional<std::tuple<int64_t, at::Tensor>> next();

  /// The piece that begins there is filled. Returns how many bytes of it are wanted.
  int64_t finish(int64_t begin);

  /// Hands over names and tensors once all pieces are filled. Throws SafetensorError for damaged ones.
  PythonLoad::Parts take();

 private:
  /// Bytes of one tensor in a piece.
  struct Part {
    size_t index;
    uint64_t begin;  // in the tensor
    uint64_t in_piece;
    uint64_t nbytes;
  };
  struct Piece {
    std::vector<Part> parts;
    at::Tensor memory;
  };

  std::vector<Part> next_parts();
  void allocate_for_cpu();
  at::Tensor memory_of(const std::vector<Part>& parts);
  void scatter(const Piece& piece) const;
  void complete(size_t index);
  uint64_t position(const Part& part) const;

  c10::intrusive_ptr<SourceHeader> header_;
  uint64_t piece_size_;
  uint64_t max_gap_;
  std::vector<const format::TensorEntry*> entries_;
  std::vector<c10::Device> devices_;
  std::vector<TensorType> types_;
  std::vector<format::Checksum> recorded_;  // empty: nothing is verified
  std::vector<format::Checksum> found_;
  std::vector<at::Tensor> tensors_;
  std::vector<uint64_t> missing_;  // bytes of each tensor that are still to come
  uint64_t total_ = 0;
  std::optional<io::HugePages> fresh_;  // of what was allocated at once

  std::mutex mutex_;       // of what follows, of `missing_`, and of allocations
  size_t incomplete_ = 0;  // tensors of which bytes are missing, or not yet where they belong
  size_t next_ = 0;
  uint64_t next_begin_ = 0;  // in the tensor
  std::unordered_map<int64_t, Piece> in_flight_;
};

}  // namespace torch_safetensors::tensors
