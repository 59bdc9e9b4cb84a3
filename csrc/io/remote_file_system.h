#pragma once

#include <string>

namespace torch_safetensors::io {

/// True if the open file lies on a network, cluster or FUSE file system, or if the system does not tell.
bool is_on_remote_file_system(int descriptor);

/// The same of a directory, with its slash, or empty for the current one.
bool is_on_remote_file_system(const std::string& directory);

}  // namespace torch_safetensors::io
