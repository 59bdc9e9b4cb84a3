#pragma once

#include <string>

#include "io/descriptor.h"

namespace torch_safetensors::io {

/// Opens `target` for writing and empties it; creates it where it does not exist. Throws OsError about
/// `given`, after which it is as it was: `refused`, with the reason, if this process may have it mapped.
Descriptor open_to_overwrite(const std::string& target, int refused, const std::string& given);

/// Appends all of the file open as `source` to the one open as `target`, and closes that. `durable` waits
/// for the disk first. Throws OsError about `given`.
void copy_file(int source, Descriptor target, bool durable, const std::string& given);

}  // namespace torch_safetensors::io
