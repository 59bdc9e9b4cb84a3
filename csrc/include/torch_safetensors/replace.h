#pragma once

#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors {

/// Overwrites the data of one tensor in an existing file, where it lies, with a dense tensor of the same
/// dtype and shape, on any device; a checksum that the file records is written anew. A symbolic link is
/// followed, except into a Hugging Face cache, whose files other revisions share: that is refused (EPERM).
///
/// The old bytes are first saved beside the file, as `<file>.undo`, a safetensors file with that tensor, and
/// removed when the new ones are on the disk. If writing fails, they are put back; if the process dies, the
/// next `replace_tensor` or `recover` of the file does so. A lock (flock) excludes others who replace: it is
/// waited for, with a warning after some seconds that names its holder, and no longer than
/// TORCH_SAFETENSORS_LOCK_TIMEOUT seconds, by default ten minutes, after which OsError (ETIMEDOUT) is thrown.
/// Readers are not excluded, and tensors mapped from the file see the change.
///
/// Throws OsError, SafetensorError for a name the file does not hold or an undo file of another file, and
/// c10::ValueError for another dtype or shape.
TORCH_SAFETENSORS_API void replace_tensor(const std::string& filename, const std::string& name,
                                          const at::Tensor& tensor);

/// Puts back what a `replace_tensor` that was killed had begun to overwrite; false if there is nothing to be
/// put back. Waits for one that is at work, as `replace_tensor` does.
TORCH_SAFETENSORS_API bool recover(const std::string& filename);

}  // namespace torch_safetensors
