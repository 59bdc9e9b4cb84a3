#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>

#include "io/in_place_file.h"
#include "tensors/named_tensor.h"
#include "tensors/open_file.h"

namespace torch_safetensors::tensors {

/// What the name of an undo file has behind that of the file it belongs to. It is a safetensors file with the
/// one tensor that is being overwritten there.
inline constexpr std::string_view kUndoSuffix = ".undo";

/// Saves it beside `target`, no more open than that, and waits for the disk. `recorded` are the digits of the
/// tensor's checksum in the file, or nothing. Throws OsError; there is none then.
void save_undo(const io::InPlaceFile& target, const NamedTensor& old, const std::string& recorded);

/// What an undo file has.
struct Undo {
  const format::TensorEntry* entry;  ///< Of the file that it belongs to.
  at::Tensor tensor;
  std::string recorded;
};

/// Reads that of `target`, which `file` has open, too. Throws OsError, and SafetensorError where it is
/// damaged or belongs to another file.
Undo load_undo(const io::InPlaceFile& target, const OpenFile& file);

}  // namespace torch_safetensors::tensors
