#pragma once

#include <cstddef>
#include <span>

#include "io/huge_pages.h"

namespace torch_safetensors::io {

/// Bytes and where they shall go: as many, in memory that overlaps nothing that is read or written.
struct CopyRange {
  std::span<const std::byte> from;
  std::byte* into;
};

/// Copies all ranges, large amounts with several threads of its own that end before it returns (a pool would
/// not survive fork). `fresh` says that what is written to lies in memory not touched before.
void copy_ranges(std::span<const CopyRange> ranges, HugePages* fresh = nullptr);

}  // namespace torch_safetensors::io
