#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "format/checksum.h"
#include "format/metadata.h"
#include "format/serialize.h"
#include "io/atomic_file.h"
#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// A file whose tensors are written one by one, in any order, to the places that a header made of their
/// names, dtypes and shapes alone gives them. It is what `SavePlan` would write of all of them, to the byte,
/// and appears under its name when it is closed. Safe to use from several threads, which write side by side.
/// In a forked child it refuses to work.
class StreamWriter {
 public:
  /// `spec`: tensors on any device, meta too, of which names, dtypes and shapes alone count; unique names.
  /// `filename` as operators pass it. Throws OsError, also where the disk has no room for all of it, and
  /// ValueError (c10) for what the format cannot hold. `checksum` as for SavePlan.
  StreamWriter(const std::string& filename, const std::vector<NamedTensor>& spec,
               std::optional<format::Metadata> metadata, bool fsync, bool checksum, int64_t alignment);
  StreamWriter(const StreamWriter&) = delete;
  StreamWriter& operator=(const StreamWriter&) = delete;

  /// Writes one tensor, of any device, contiguous or not, and tells Progress. Throws ValueError (c10) for a
  /// name or tensor that the spec does not have and for a second one of that name, after which all is as
  /// before; and whatever makes reading or writing it fail, after which the writer is aborted.
  void write(const NamedTensor& named);

  /// Publishes the file, and returns what to warn of (SavePlan). More than once does no harm. Waits for
  /// writes in progress; where one of them fails, the writer is aborted. Throws ValueError (c10) that lists
  /// the tensors missing, and OsError; the writer is aborted then, and an old file as it was. One exception:
  /// with `fsync`, an OsError that says so means that the file is published, but may not survive a power
  /// failure.
  [[nodiscard]] std::string close();

  /// Gives up: the temporary file is gone, an old one as it was. Nothing where it was closed or aborted
  /// before.
  void abort();

 private:
  void check_process() const;
  void check_open() const;
  void check_not_failed();
  void fail(std::string reason) noexcept;
  size_t find(const NamedTensor& named) const;
  void put(size_t index, const at::Tensor& tensor);
  void end(bool published);
  void give_up(const std::string& reason);
  std::string list_missing() const;
  format::SerializedHeader header() const;

  std::string path_;
  std::string source_;             // for messages
  std::vector<NamedTensor> spec_;  // on meta
  std::optional<format::Metadata> metadata_;
  int64_t alignment_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::vector<uint64_t> positions_;
  std::vector<std::atomic<bool>> begun_;
  std::vector<std::atomic<bool>> written_;  // whole
  std::optional<std::vector<format::Checksum>> checksums_;
  pid_t process_;
  std::shared_mutex mutex_;               // writes share it; whoever ends them has it alone
  std::unique_ptr<io::AtomicFile> file_;  // while it can be written to
  std::string end_;                       // why it cannot
  std::mutex failing_;
  std::string failure_;  // the first, which the thread that failed may not have acted on yet
  bool published_ = false;
};

}  // namespace torch_safetensors::tensors
