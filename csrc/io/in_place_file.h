#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/descriptor.h"
#include "io/held_lock.h"
#include "io/save_target.h"

namespace torch_safetensors::io {

/// An existing file that is open to be changed where it lies, and locked (flock) against others who do so.
class InPlaceFile {
 public:
  /// Follows symbolic links, and waits for the lock as HeldLock does, with its errors. Throws OsError, EISDIR
  /// or EINVAL for what is not a regular file, and EPERM for a file that is shared with others (SaveTarget).
  explicit InPlaceFile(const std::string& path, const OnWait& on_wait = {});

  /// The path, links followed.
  const std::string& path() const { return target_.path; }
  const struct stat& status() const { return status_; }

  /// False if another file has its name by now, or none. Throws OsError.
  bool is_in_place() const;

  /// Tells it from every other file that is or was on its file system, as far as that can tell: the number of
  /// its inode, and when that was made.
  std::string identity() const;

  /// Throws OsError.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);

  /// Waits until what was written is on the disk. Throws OsError.
  void flush();

  /// The path of the file beside it that has its name and `suffix`.
  std::string beside(std::string_view suffix) const { return target_.path + std::string(suffix); }

  /// True if there is such a file. Throws OsError.
  bool has(std::string_view suffix) const;

  /// Removes that file. Throws OsError.
  void remove(std::string_view suffix) const;

  /// The same, as far as it can be removed.
  void discard(std::string_view suffix) const noexcept;

  /// Waits until its directory is on the disk. Throws OsError.
  void flush_directory() const;

 private:
  std::string given_;  // for messages
  SaveTarget target_;
  Descriptor descriptor_;
  std::optional<HeldLock> lock_;
  struct stat status_;
};

}  // namespace torch_safetensors::io
