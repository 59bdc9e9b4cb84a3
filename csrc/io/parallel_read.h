#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "io/file.h"
#include "io/huge_pages.h"

namespace torch_safetensors::io {

/// A piece of a file and where it shall go.
struct ReadRange {
  uint64_t offset;
  std::span<std::byte> into;
};

/// Reads all ranges, and tells Progress; large amounts with several threads of its own that end before it
/// returns (a pool would not survive fork): `threads`, or what suits the file. Throws the first error after
/// all threads have ended. `fresh` says that what is written to lies in memory not touched before.
void read_ranges(const File& file, std::span<const ReadRange> ranges, HugePages* fresh = nullptr,
                 std::optional<size_t> threads = std::nullopt);

/// The same on the calling thread, in the order given; those that follow one another in the file are read
/// together.
void read_in_turn(const File& file, std::span<const ReadRange> ranges);

}  // namespace torch_safetensors::io
