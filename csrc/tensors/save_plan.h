#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "format/serialize.h"
#include "io/atomic_file.h"
#include "tensors/check_savable.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {

/// A save whose arguments are checked and whose header is made; what is left is to write it.
class SavePlan {
 public:
  /// Throws what `check_savable` throws, and ValueError (c10) for names, metadata and an `alignment` that the
  /// header cannot have (format/serialize.h). `checksum` records the tensors' checksums in the metadata
  /// (format/checksum.h), for which they are read here.
  SavePlan(std::vector<NamedTensor> tensors, const std::optional<format::Metadata>& metadata, bool checksum,
           int64_t alignment = 0, Overlap overlap = Overlap::kRefused);

  /// Bytes of the whole file.
  uint64_t size() const { return header_.bytes.size() + header_.data_size; }

  /// Writes the whole file into `out`, of `size()` bytes.
  void write_to(std::span<std::byte> out) const;

  /// Writes the whole file atomically (io/atomic_file.h). `filename` as operators pass it. Returns what the
  /// caller is to be warned of: nothing, or that the file system cannot rename, so that the file was written
  /// in place.
  [[nodiscard]] std::string write_to(const std::string& filename, bool fsync) const;

  /// Appends the whole file to one that is not committed then. Tells Progress.
  void write_to(io::AtomicFile& file) const;

 private:
  /// Calls `emit(bytes, is_temporary)` for the header and the tensors in the order of the file. What had to
  /// be copied (other devices, lazy conjugates) comes in pieces that live until emit returns.
  template <typename Emit>
  void for_each_piece(Emit emit) const;

  std::vector<NamedTensor> tensors_;
  format::SerializedHeader header_;
};

/// Puts a file under its name, `path`. Returns what to warn of, as `SavePlan::write_to` does.
[[nodiscard]] std::string commit(io::AtomicFile& file, const std::string& path);

/// Bytes that `save` would return; the tensors need no memory, so that graphs can ask before they run.
int64_t saved_size(const TensorDict& tensors, const std::optional<Metadata>& metadata, bool checksum);

/// Warns of what a save returned.
void warn_of(const std::string& warning);

/// The forms the operators have.
std::vector<NamedTensor> to_named(const TensorDict& tensors);
std::optional<format::Metadata> to_format(const std::optional<Metadata>& metadata);

/// `save_file` as an operator: no alignment is 0 (library.cpp says why it is not written so).
void save_dict(const TensorDict& tensors, const std::string& filename,
               const std::optional<Metadata>& metadata, bool fsync, bool checksum,
               std::optional<int64_t> alignment);

/// The same of lists: `metadata` is flat, key, value, key, value.
void save_tensors(const std::string& filename, const std::vector<std::string>& names,
                  const std::vector<at::Tensor>& tensors,
                  const std::optional<std::vector<std::string>>& metadata, bool fsync, bool checksum,
                  std::optional<int64_t> alignment);

}  // namespace torch_safetensors::tensors
