#pragma once

#include <span>
#include <string>

#include "tensors/checkpoint.h"

namespace torch_safetensors::tensors {

/// A tensor of a file and the existing tensor that shall hold its values.
struct Target {
  const format::TensorEntry* entry;
  at::Tensor out;
};

/// Throws what `out.copy_` would throw for a tensor of the entry's dtype, before anything is written: an
/// inference tensor outside inference mode, a leaf that requires grad, memory written twice, a conversion
/// that does not exist. Also for the meta device. `label` names the tensor in errors. Shapes are the caller's
/// to check.
void check_writable(const at::Tensor& out, c10::ScalarType from, const std::string& label);

/// Fills the targets, which have as many elements as their entries, straight into their memory where they are
/// dense tensors of the file's dtype (in parallel; on devices through bounded host memory, device_load.h),
/// with `copy_` elsewhere. Bumps each one's version, so that autograd sees the write. Targets are checked.
/// Tells Progress, whose report may stop it halfway.
void write_into(const Checkpoint& file, std::span<const Target> targets, const TransferOptions& options = {});

/// Both for tensors that must have exactly the file's shape and dtype.
void load_into(const Checkpoint& file, const std::vector<std::string>& names,
               const std::vector<at::Tensor>& outs);

}  // namespace torch_safetensors::tensors
