#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "io/file.h"

namespace torch_safetensors::io {

/// The whole of a file as private, writable, copy-on-write pages, read when touched. Writing to them never
/// changes the file. The file's descriptor may be closed; a later truncation of the file makes untouched
/// pages beyond its new end raise SIGBUS.
class Mapping {
 public:
  /// Throws OsError, e.g. ENOMEM. An empty file gives an empty mapping.
  explicit Mapping(const File& file);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace torch_safetensors::io
