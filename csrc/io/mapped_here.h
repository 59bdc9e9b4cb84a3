#pragma once

#include <sys/stat.h>

#include <string>

namespace torch_safetensors::io {

/// True if memory of this process may be mapped from the file, in doubt also if it is not: then writing to
/// the file would change that memory, and truncating it would turn its use into SIGBUS.
bool is_mapped_here(const std::string& path, const struct stat& status);

}  // namespace torch_safetensors::io
