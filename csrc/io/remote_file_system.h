#pragma once

namespace torch_safetensors::io {

/// True if the open file lies on a network, cluster or FUSE file system, or if the system does not tell.
bool is_on_remote_file_system(int descriptor);

}  // namespace torch_safetensors::io
