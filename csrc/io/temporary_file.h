#pragma once

#include <sys/types.h>

#include <string>

#include "io/descriptor.h"
#include "io/save_target.h"

namespace torch_safetensors::io {

/// A new, empty file beside a target, locked, and removed with this object unless it was released.
///
/// Its name is `.st-<hash of the target's name>-<slot>`, short also for the longest target name. The slot is
/// the first that no living save holds; what killed saves left in the slots is removed on the way.
class TemporaryFile {
 public:
  /// Creates it with the permission bits `mode` less the umask. Throws OsError about `given`, the target's
  /// path as the user wrote it.
  TemporaryFile(const SaveTarget& target, mode_t mode, const std::string& given);
  ~TemporaryFile() { remove(); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  /// Open for reading and writing.
  int descriptor() const { return descriptor_.get(); }

  /// False if the name is gone or leads to another file that is not a whole copy either. Throws OsError about
  /// `given`.
  bool is_in_place(const std::string& given) const;

  /// Removes it, unless it was released or removed before.
  void remove() noexcept;

  /// Gives up the lock and the descriptor and leaves the file, under whatever name it has by now.
  void release();

 private:
  std::string path_;
  Descriptor descriptor_;
};

/// Removes what killed saves to any target left in a directory. Throws OsError where it cannot be listed.
void remove_dead_files(const std::string& directory);

}  // namespace torch_safetensors::io
