#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/descriptor.h"

namespace torch_safetensors::io {

/// An existing file that another process made and will give its name (AtomicFile), open to have parts of it
/// written. Its lock is the maker's, and stays so.
class OpenRanges {
 public:
  /// `given` stands in messages, since the file's own name means nothing to anybody. Throws OsError.
  OpenRanges(const std::string& path, const std::string& given);

  /// Throws OsError. Safe to call from several threads.
  void write_at(uint64_t offset, std::span<const std::byte> bytes) const;

  /// Throws OsError for whatever went wrong with writes before. `durable`: they are on the disk then.
  void finish(bool durable) const;

 private:
  std::string given_;
  Descriptor descriptor_;
};

}  // namespace torch_safetensors::io
