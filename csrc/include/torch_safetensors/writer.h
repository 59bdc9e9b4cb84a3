#pragma once

#include <memory>

#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors {

namespace tensors {
class StreamWriter;
}

/// A file that is written tensor by tensor, in any order, for what does not fit into memory at once: the same
/// bytes as `save_file` of all of them, under its name only when it is closed.
///
///     torch_safetensors::Writer writer("model.safetensors", spec);
///     for (const auto& item : spec) writer.write(item.key(), make(item.key()));
///     writer.close();
///
/// Safe to use from several threads, which write side by side; in a forked child it refuses to work.
class TORCH_SAFETENSORS_API Writer {
 public:
  /// `spec`: all tensors that will be written; their names, dtypes and shapes alone count, so they can be on
  /// the meta device. The other arguments are those of `save_file`. Throws OsError, also where the disk has
  /// no room for the whole file.
  Writer(const std::string& filename, const TensorDict& spec,
         const std::optional<Metadata>& metadata = std::nullopt, bool fsync = false, bool checksum = false,
         int64_t alignment = 0);
  /// Aborts unless it was closed.
  ~Writer();
  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) noexcept;

  /// Writes one tensor: dense, on any device; one that is not contiguous is copied first. One that does not
  /// fit the spec, or was written before, is refused (c10::ValueError) and nothing has happened. Any other
  /// error aborts the writer.
  void write(std::string_view name, const at::Tensor& tensor);

  /// Puts the file under its name; more than once does no harm. Waits for writes of other threads; if one of
  /// them fails, so does this. Throws c10::ValueError that lists the tensors missing, and OsError: the writer
  /// is aborted then. One exception: with `fsync`, an OsError that says that the new file is in place means
  /// that it is, and that it may not survive a power failure.
  void close();

  /// Removes what was written; an old file stays as it was.
  void abort();

 private:
  std::unique_ptr<tensors::StreamWriter> impl_;
};

}  // namespace torch_safetensors
