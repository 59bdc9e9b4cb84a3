#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "io/file.h"

namespace torch_safetensors::io {

/// A file, or a part of it, as private, writable, copy-on-write pages, read when touched. Writing to them
/// never changes the file, nor another mapping of it. The file's descriptor may be closed; a later truncation
/// of the file makes untouched pages beyond its new end raise SIGBUS.
class Mapping {
 public:
  /// The whole file. Throws OsError, e.g. ENOMEM. An empty file gives an empty mapping.
  explicit Mapping(const File& file) : Mapping(file, 0, file.size()) {}

  /// `size` bytes from `offset` on, which must lie within the file.
  Mapping(const File& file, uint64_t offset, size_t size);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
  size_t skipped_ = 0;  // from the beginning of the first page to them
};

}  // namespace torch_safetensors::io
