#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tensors/byte_source.h"
#include "tensors/open_file.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::format {
class ShardIndex;
}

namespace torch_safetensors::tensors {

class CheckpointBytes;

/// Tensors on disk that are open by name: a file, or all the files that an index lists, or what a directory
/// holds of these (checkpoint_files.h). Each file is valid, no name is in two of them, and the index says of
/// every name which file has it. Entries belong to the files' headers, and live as long. Safe to use from
/// several threads.
class Checkpoint {
 public:
  using Entry = format::TensorEntry;

  /// `path` as operators pass it. Throws what OpenFile does, and SafetensorError for an index that is wrong.
  Checkpoint(const std::string& path, std::string_view backend);

  /// The path of the file or index, as it stands in front of messages.
  const std::string& source() const { return source_; }

  /// The path of the file that has the tensor, likewise.
  const std::string& source_of(const Entry& entry) const { return file_of(entry).source(); }

  size_t size() const;
  std::span<const std::unique_ptr<OpenFile>> files() const { return files_; }

  /// File by file, in the order of the data.
  std::vector<const Entry*> entries() const;

  /// Sorted by the bytes of their names.
  std::vector<const Entry*> sorted_entries() const;

  /// Whether `a` stands before `b` in that order.
  bool is_before(const Entry& a, const Entry& b) const;

  /// The tensor of that name, or null.
  const Entry* find(std::string_view name) const;

  /// The same. Throws SafetensorError where there is none.
  const Entry& entry(std::string_view name) const;

  /// The file that has the tensor.
  const OpenFile& file_of(const Entry& entry) const { return *files_[index_of(entry)]; }

  /// Whether any file has metadata.
  bool has_metadata() const;

  /// All files' metadata, sorted by key; of values for one key the first file's. Without the checksums where
  /// there are several files: each tells of its own tensors alone.
  Metadata metadata() const;

  bool is_mapped() const;

  /// All files' bytes one after the other, as long as this lives, and where in these an entry's begin.
  CheckpointBytes bytes() const;
  uint64_t position(const Entry& entry) const;

  // As in OpenFile, across the files.
  std::vector<at::Tensor> read(std::span<const Entry* const> entries, c10::Device device,
                               const TransferOptions& options = {}, bool verify = false) const;
  at::Tensor read(const Entry& entry, c10::Device device) const { return file_of(entry).read(entry, device); }
  std::vector<at::Tensor> read_all(c10::Device device, const TransferOptions& options = {},
                                   bool verify = false) const;
  void will_need(std::span<const Entry* const> entries) const;
  void verify() const;

 private:
  friend class CheckpointBytes;

  void open_file(const std::string& path, std::string_view backend);
  void open_index(const std::string& path, std::string_view backend);
  void check_index(const format::ShardIndex& index);
  size_t index_of(const Entry& entry) const;
  struct Part;
  std::vector<Part> by_file(std::span<const Entry* const> entries) const;

  std::string source_;
  std::vector<std::unique_ptr<OpenFile>> files_;
  /// Where each file begins in `bytes()`.
  std::vector<uint64_t> begins_;
  /// The first entry of each file, and which file that is, sorted: tells whose an entry is.
  using AddressAndFile = std::pair<const Entry*, size_t>;
  std::vector<AddressAndFile> by_address_;
  /// By name, where there is more than one file.
  std::unordered_map<std::string_view, const Entry*> by_name_;
};

/// The bytes of a checkpoint's files, as if they were one file.
class CheckpointBytes : public ByteSource {
 public:
  explicit CheckpointBytes(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  void read(std::span<const io::ReadRange> ranges) const override;

 private:
  const Checkpoint& checkpoint_;
};

inline CheckpointBytes Checkpoint::bytes() const { return CheckpointBytes(*this); }

}  // namespace torch_safetensors::tensors
