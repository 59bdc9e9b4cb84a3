#pragma once

#include <sys/stat.h>

#include <string>

namespace torch_safetensors::io {

/// Throws OsError EINVAL for a path with a NUL in it, which the system would take for its end.
void require_no_nul(const std::string& path);

/// Throws OsError, EISDIR for a directory and EINVAL for whatever else is not a regular file.
void require_regular(const struct stat& status, const std::string& path);

/// True if the two describe one file.
bool is_same_file(const struct stat& a, const struct stat& b);

}  // namespace torch_safetensors::io
