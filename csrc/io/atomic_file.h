#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "io/direct_writer.h"
#include "io/save_target.h"
#include "io/temporary_file.h"

namespace torch_safetensors::io {

/// How a save reached its target.
enum class Commit {
  kRenamed,         ///< Atomically.
  kWrittenInPlace,  ///< The file system has no rename: the target was overwritten.
};

/// How a file is written.
enum class Order {
  kAppended,    ///< By `write`.
  kAtAnyPlace,  ///< By `write_at`.
  kByOthers,    ///< By `write_at`, and by other processes (OpenRanges).
};

/// Less the umask, as the kernel does for every new file.
inline constexpr mode_t kNewFileMode = 0666;

/// A file that appears under its name only when it is whole: it is written beside the target and renamed.
///
/// * A symbolic link is followed: the file it points to (existing or not) is the target.
/// * An existing target keeps its mode; a new one gets 0666 less the umask.
/// * Anything but a regular file as target is refused (EISDIR, EINVAL).
/// * Temporary names are short and derived from the target's; what a killed save left under them is removed
///   by the next save to that target. A lock (flock) tells a live temporary file from a dead one.
/// * A file that could not be written to as asked for, on whatever thread, is not committed.
class AtomicFile {
 public:
  /// Opens the temporary file. `durable`: what is committed is on the disk. Throws OsError.
  explicit AtomicFile(const std::string& path, bool durable = false)
      : AtomicFile(path, durable, Order::kAppended) {}
  /// The same; a new target gets the permission bits `new_mode` less the umask.
  AtomicFile(const std::string& path, bool durable, Order order, mode_t new_mode = kNewFileMode);
  /// Removes the temporary file unless it was committed.
  ~AtomicFile() = default;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends the pieces. Throws OsError (ENOSPC, EFBIG, EIO, …), after which only destruction is of use.
  void write(std::span<const std::span<const std::byte>> pieces);

  /// Sets space aside for a file of so many bytes, as far as the file system can. Throws OsError where they
  /// are too many (ENOSPC, EDQUOT, EFBIG).
  void reserve(uint64_t size);

  /// Gives the file its size, which reads as zeros, and sets the space aside as `reserve` does. Throws as
  /// that.
  void extend(uint64_t size);

  /// Has what was written reach the disk, or the server where there is one: other hosts see it then.
  void publish_to_hosts();

  /// Where others who open the file to write to it (OpenRanges) find it until it is committed.
  const std::string& temporary_path() const { return temporary_.path(); }

  /// Writes bytes to their place in the file. Throws as `write`. Safe to call from several threads.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);

  /// Gives it another target, on the same file system. Throws OsError about `path` as the constructor.
  void aim_at(const std::string& path);

  /// Puts the file under its name; a durable one and its directory are flushed to the disk. Throws OsError.
  /// Then the old file is as it was, unless `is_published`: the name of the new file could not be flushed,
  /// and after a power failure the old file may be back. Where the file system refuses to rename (ENOSYS,
  /// EOPNOTSUPP, EPERM), the target is overwritten in place, unless this process maps it (then the error of
  /// rename is thrown); if that fails, the target is incomplete, and the error says which file is whole.
  Commit commit();

  /// True if the file is under its name, also where `commit` threw.
  bool is_published() const { return is_published_; }

 private:
  template <typename Write>
  void or_fail(Write write);
  void flush_name() const;
  void restore_attributes() const;
  void write_in_place(int rename_error);
  void keep_whole();

  std::string path_;  // as given, for messages
  SaveTarget target_;
  TemporaryFile temporary_;
  bool durable_;
  bool is_published_ = false;
  std::atomic<int> failure_{0};         // the errno of a write that failed
  std::optional<DirectWriter> direct_;  // where it is of use
};

}  // namespace torch_safetensors::io
