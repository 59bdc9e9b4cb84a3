#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

namespace torch_safetensors::io {

/// Which file this is and when it was last written, as far as the system tells.
struct FileIdentity {
  uint64_t device;
  uint64_t inode;
  uint64_t size;
  int64_t modified;  ///< Nanoseconds; of the content.
  int64_t changed;   ///< The same, of anything: links and modes, too.

  bool operator==(const FileIdentity& other) const = default;

  /// Whether `other` is this file with the content it has here: more links to it, or another mode, are no
  /// difference.
  bool has_content_of(const FileIdentity& other) const;
};

FileIdentity identity_of(const struct stat& status);

/// Whether a path leads to that file, unchanged. False where it leads nowhere. As long as a descriptor of the
/// file is open, no other one gets its inode. Opens the path, which makes network file systems ask the
/// server.
bool leads_to(const std::string& path, const FileIdentity& identity);

}  // namespace torch_safetensors::io
