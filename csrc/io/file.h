#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/descriptor.h"
#include "io/file_identity.h"

namespace torch_safetensors::io {

/// A regular file, open for reading. Its size is that of the moment it was opened.
class File {
 public:
  /// Throws OsError: ENOENT, EACCES, EISDIR for a directory, EINVAL for any other kind that is not a
  /// regular file (never blocks on a FIFO), EINVAL for a path with a NUL in it.
  explicit File(std::string path);
  File(File&& other) noexcept = default;
  File& operator=(File&&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return identity_.size; }

  /// As it was when it was opened.
  const FileIdentity& identity() const { return identity_; }

  int descriptor() const { return descriptor_.get(); }

  /// True on network and FUSE file systems, where reading by page faults is slow or unsafe.
  bool is_remote() const;

  /// Fills `into` from `offset`. Throws OsError, EIO with both numbers if the file ends before
  /// (it was truncated after it was opened). Safe to call from several threads.
  void read_at(uint64_t offset, std::span<std::byte> into) const;

 private:
  std::string path_;
  Descriptor descriptor_;
  FileIdentity identity_ = {};
};

}  // namespace torch_safetensors::io
