#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "io/descriptor.h"
#include "io/lock_guard.h"
#include "io/save_target.h"

namespace torch_safetensors::io {

/// Who opens a temporary file by its name.
enum class Access {
  kMaker,   ///< Nobody but its maker.
  kOthers,  ///< Other processes too, at any time: its name is one that no other file will ever have.
};

/// A new, empty file beside a target, locked, and removed with this object unless it was released or left.
///
/// Its name (temporary_name.h) has the first slot that no living save to the target holds; what killed saves
/// left in the slots is removed on the way. A file for others has a random part in its name, and an empty,
/// locked file in the slot itself: by that, the next save finds what a killed one left.
class TemporaryFile {
 public:
  /// Creates it with the permission bits `mode` less the umask. Throws OsError about `given`, the target's
  /// path as the user wrote it.
  TemporaryFile(const SaveTarget& target, mode_t mode, const std::string& given,
                Access access = Access::kMaker);
  ~TemporaryFile() { remove(); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return file_.path; }
  /// Open for reading and writing.
  int descriptor() const { return file_.descriptor.get(); }

  /// False if the name is gone or leads to another file that is not a whole copy either. Throws OsError about
  /// `given`.
  bool is_in_place(const std::string& given) const;

  /// Removes it, unless it was released, left or removed before. In a child that was forked meanwhile, the
  /// file is the parent's, and stays.
  void remove() noexcept;

  /// Gives up the lock and the descriptor of the file, which has another name by now.
  void release() noexcept;

  /// Gives up the lock and the descriptor, and leaves the file under its name: as of a killed save.
  void leave() noexcept;

 private:
  struct Locked {
    std::string path;
    Descriptor descriptor;
    std::unique_ptr<LockGuard> lock;  // null where the file system has no locks
  };

  static Locked create(std::string path, mode_t mode, const std::string& given);
  void make_for_others(mode_t mode, const std::string& given);
  void remove(Locked& file) noexcept;
  static void let_go(Locked& file) noexcept;

  Locked file_;
  Locked slot_;  // of a file for others
  pid_t process_ = ::getpid();
};

/// Removes what killed saves to any target left in a directory: files with names of our form (others are
/// left alone) that nobody has locked. A file whose lock would not be seen here, since another host made it,
/// is removed when nobody has written to it for a week. Throws OsError where the directory cannot be listed.
void remove_dead_files(const std::string& directory);

}  // namespace torch_safetensors::io
