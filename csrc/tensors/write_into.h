#pragma once

#include <optional>
#include <span>
#include <string>

#include "tensors/checkpoint.h"
#include "tensors/overflows.h"
#include "tensors/strided_runs.h"

namespace torch_safetensors::tensors {

/// A tensor of a file and the existing tensor that shall hold its values, or those of a part of it.
struct Target {
  const format::TensorEntry* entry;
  at::Tensor out;
  /// The part, which has the sizes of `out`; nothing for all of it.
  std::optional<StridedView> part = {};
};

/// Throws what `out.copy_` would throw for a tensor of the entry's dtype, before anything is written: an
/// inference tensor outside inference mode, a leaf that requires grad, memory written twice, a conversion
/// that does not exist. Also for the meta device, and for memory that is not there (byte_range.h), where
/// `copy_` would write all the same. `label` names the tensor in errors. Shapes are the caller's to check.
void check_writable(const at::Tensor& out, c10::ScalarType from, const std::string& label);

/// Fills the targets, which have as many elements as their entries or parts, straight into their memory where
/// they are dense tensors of the file's dtype (in parallel; on devices through bounded host memory,
/// device_load.h), with `copy_` elsewhere. Bumps each one's version, so that autograd sees the write. Targets
/// are checked. Tells Progress, whose report may stop it halfway, and `overflows` what conversions lose.
void write_into(const Checkpoint& file, std::span<const Target> targets, Overflows* overflows = nullptr,
                const TransferOptions& options = {});

/// Both for tensors that must have exactly the file's shape and dtype; or with `offsets`, one for each
/// dimension of each tensor, be as large as a part that begins there. Throws ValueError (c10).
void load_into(const Checkpoint& file, const std::vector<std::string>& names,
               const std::vector<at::Tensor>& outs,
               const std::optional<std::vector<std::vector<int64_t>>>& offsets = std::nullopt);

}  // namespace torch_safetensors::tensors
