#pragma once

#include <cstdint>

namespace torch_safetensors::format {

/// True for what cannot stand in a string of JSON as it is: quotation marks, backslashes, control characters.
inline bool is_special(char c) { return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\'; }

/// Eight bytes at once: the high bits of those that are special. Exact up to the first one of them, the
/// lowest; above it others may be marked, too.
inline uint64_t special_bytes(uint64_t word) {
  constexpr uint64_t kEach = 0x0101010101010101;
  // A byte below `n` borrows from its high bit when `n` is subtracted, and had none set before.
  const uint64_t control = (word - kEach * 0x20) & ~word;
  const uint64_t quote = word ^ (kEach * '"');
  const uint64_t backslash = word ^ (kEach * '\\');
  return (control | ((quote - kEach) & ~quote) | ((backslash - kEach) & ~backslash)) & (kEach * 0x80);
}

}  // namespace torch_safetensors::format
