#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "io/file.h"

namespace torch_safetensors::io {

/// At most so many descriptors of a process are kept by SteadyFiles that can do without, and no more than a
/// quarter of its limit.
inline constexpr size_t kMaxKept = 64;

/// A file that is read more than once, each time with the content it had when it was opened. Where its
/// descriptor is not kept it is opened again for each use, and must be the same file. Safe to use from
/// several threads.
class SteadyFile {
 public:
  /// Keeps the descriptor.
  explicit SteadyFile(File file);

  /// One of several files that belong together, of which `index` tells: keeps the descriptor while few are
  /// kept. Opened again, it counts only while the index is the one that was read: it is that which makes the
  /// files of a checkpoint valid.
  SteadyFile(File file, std::shared_ptr<const File> index);
  ~SteadyFile();
  SteadyFile(const SteadyFile&) = delete;
  SteadyFile& operator=(const SteadyFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return identity_.size; }
  const FileIdentity& identity() const { return identity_; }

  /// Whether a descriptor is open between uses.
  bool is_kept() const { return kept_ != nullptr; }

  /// The file, open for as long as the result lives. Throws OsError: ESTALE, with text of ours, where its
  /// name leads to another file by now, or to none.
  std::shared_ptr<const File> open() const;

 private:
  std::string path_;
  FileIdentity identity_;
  std::shared_ptr<const File> index_;
  std::shared_ptr<const File> kept_;
  bool has_slot_ = false;
};

/// Throws the OsError of a file that was replaced since it was opened: ESTALE.
[[noreturn]] void throw_replaced(const std::string& path);

}  // namespace torch_safetensors::io
