#pragma once

#include <string>

namespace torch_safetensors::io {

/// Which processes see each other's locks (flock) in a directory (with its slash, or empty for the current
/// one): empty on a local file system, where all do. On a network file system, which may keep locks to the
/// host that takes them, 16 hexadecimal digits that all processes of this host since it was started have in
/// common, and no others.
std::string lock_domain(const std::string& directory);

}  // namespace torch_safetensors::io
