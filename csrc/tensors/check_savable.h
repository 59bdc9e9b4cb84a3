#pragma once

#include <span>

#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// What to do with tensors that share memory.
enum class Overlap {
  kRefused,
  kWrittenTwice,  ///< Each in full under its name.
};

/// Checks that the tensors can be written as they are: dense, contiguous, of a dtype of the format, with
/// memory that is there, and none overlapping another unless that is allowed. Throws c10 errors of the types
/// the reference raises, naming the tensor and the way out: ValueError; NotImplementedError for the meta
/// device; a plain Error (RuntimeError in Python) for shared memory.
void check_savable(std::span<const NamedTensor> tensors, Overlap overlap);

/// The same for parts of tensors, which are packed where they are not contiguous.
void check_parts_savable(std::span<const NamedTensor> parts, Overlap overlap);

/// One tensor, packed where it is not contiguous, and checked to be savable by itself.
NamedTensor packed(NamedTensor named);

/// The part of it that concerns one tensor's dtype.
void check_dtype(const NamedTensor& named);

}  // namespace torch_safetensors::tensors
