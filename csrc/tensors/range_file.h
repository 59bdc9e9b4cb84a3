#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "format/metadata.h"
#include "io/atomic_file.h"
#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// A file that several processes write together, its maker among them, each by `write_ranges` to the
/// temporary file that this makes: header and size are those of the whole from the beginning, so that it is a
/// valid file of zeros. It is what `SavePlan` would write of all tensors, to the byte, once all have written
/// their parts, and appears under its name when the maker commits it. Not to be used by several threads at
/// once.
class RangeFile {
 public:
  /// As StreamWriter's. Throws the same.
  RangeFile(const std::string& filename, const std::vector<NamedTensor>& spec,
            const std::optional<format::Metadata>& metadata, bool fsync, int64_t alignment);
  /// Gives up unless it was committed; in a forked child, the temporary file stays the parent's.
  ~RangeFile() = default;
  RangeFile(const RangeFile&) = delete;
  RangeFile& operator=(const RangeFile&) = delete;

  /// The temporary file's path, which no other file ever has: who opens it late finds nothing.
  const std::string& temporary() const;

  /// Publishes the file, and returns what to warn of (SavePlan). Throws ValueError (c10) where it was
  /// committed or given up before, and OsError, after which it is given up and an old file as it was. One
  /// exception: with `fsync`, an OsError that says so means that the file is published, but may not survive a
  /// power failure.
  [[nodiscard]] std::string commit();

  /// The same under another name in the same directory: others may have taken the one it was made for.
  [[nodiscard]] std::string commit_as(const std::string& filename);

  /// Gives up: the temporary file is gone, an old one as it was. Nothing where it was committed before.
  void abort();

 private:
  void check_open() const;

  std::string path_;
  pid_t process_;
  std::unique_ptr<io::AtomicFile> file_;  // until its end
};

}  // namespace torch_safetensors::tensors
