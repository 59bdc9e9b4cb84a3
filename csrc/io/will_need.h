#pragma once

#include <cstdint>

#include "io/file.h"

namespace torch_safetensors::io {

/// Tells the system that [offset, offset + size) of a file is read soon: it begins to read it into the page
/// cache, and this returns. Does nothing where the system has no such call. Never throws: what was not read
/// ahead is read when it is wanted.
void will_need(const File& file, uint64_t offset, uint64_t size) noexcept;

}  // namespace torch_safetensors::io
