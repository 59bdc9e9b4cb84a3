#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// A part of a tensor of a file: that of the tensor's shape which begins at `offsets`, in torch's elements.
struct Box {
  NamedTensor part;
  std::vector<int64_t> offsets;
};

/// Writes parts of tensors into the temporary file of a RangeFile, which any process may have made: of any
/// device, contiguous or not (a copy is made of one that is not). `filename`, as operators pass it, is the
/// one that messages are about. All parts are checked before the first is written. `fsync`: what was written
/// is on the disk then. Throws ValueError (c10) naming the tensor and the numbers for a part that does not
/// fit, SafetensorError for a name that the file does not hold, and OsError.
void write_ranges(const std::string& temporary, const std::string& filename, std::span<const Box> boxes,
                  bool fsync);

}  // namespace torch_safetensors::tensors
