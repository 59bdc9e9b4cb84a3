#pragma once

#include <string>

namespace torch_safetensors::io {

/// Waits until the file's bytes are on the disk. Throws OsError about `given`.
void flush_file(int descriptor, const std::string& given);

/// Waits until the names in a directory (with its slash, or empty for the current one) are on the disk, as
/// far as its file system can tell. Throws OsError about `given`.
void flush_directory(const std::string& directory, const std::string& given);

/// Throws what the file system has not yet said about earlier writes: over a network, a full disk or quota
/// may be known only when a descriptor of the file is closed. The given one stays open.
void check_delayed_errors(int descriptor, const std::string& given);

}  // namespace torch_safetensors::io
