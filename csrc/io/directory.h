#pragma once

#include <string>
#include <vector>

namespace torch_safetensors::io {

/// The names of what a directory holds but . and .., sorted by their bytes. Throws OsError.
std::vector<std::string> list_directory(const std::string& path);

}  // namespace torch_safetensors::io
