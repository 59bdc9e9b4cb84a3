#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "format/shard_index.h"
#include "tensors/byte_source.h"
#include "tensors/open_file.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {

class CheckpointBytes;

/// Tensors on disk that are open by name: a file, or all the files that an index lists, or what a directory
/// holds of these (checkpoint_files.h). The index says of every name which file has it. Entries belong to the
/// files' headers, and live as long. Safe to use from several threads.
///
/// All files are of one save, also where another process replaces them meanwhile: they are opened again
/// until the index is the same before and after. What is read later is of that save, too, or throws OsError,
/// ESTALE (io/steady_file.h).
class Checkpoint {
 public:
  using Entry = format::TensorEntry;

  /// What has to be there.
  struct Opening {
    /// All files that the index lists. Unless `strict_index` is false, these must have the tensors that it
    /// assigns to them and no others.
    static Opening all(bool strict_index = true) { return {.strict_index = strict_index}; }

    /// The files that the index assigns these tensors to; others are not opened. A name that it does not have
    /// is for `entry` to refuse.
    static Opening of(std::span<const std::string> names) { return {.names = names, .is_whole = false}; }

    /// Whatever there is: a file that is missing or malformed is an error for those who ask for its tensors.
    static Opening present() { return {.is_whole = false}; }

    std::optional<std::span<const std::string>> names = std::nullopt;
    bool is_whole = true;
    bool strict_index = true;
  };

  /// `path` as operators pass it. Throws what OpenFile does, SafetensorError for an index that is wrong, and
  /// OsError, ESTALE, where the checkpoint was replaced again and again.
  Checkpoint(const std::string& path, std::string_view backend, const Opening& opening = Opening::all());

  /// Throws the error of a file that is missing or malformed, and SafetensorError with all differences where
  /// the index assigns tensors to files that do not have them, or, if `strict_index`, files have others.
  void require_whole(bool strict_index) const;

  /// Whether the path still leads to what was opened, unchanged.
  bool is_current() const;

  /// The file or index that was opened, as it was then.
  const io::FileIdentity& version() const;

  /// The path of the file or index, as it stands in front of messages.
  const std::string& source() const { return source_; }

  /// The path of the file that has the tensor, likewise.
  const std::string& source_of(const Entry& entry) const { return file_of(entry).source(); }

  /// How many tensors it has; of several files, how many the index assigns.
  size_t size() const;

  /// Those that are open.
  std::span<const std::unique_ptr<OpenFile>> files() const { return files_; }

  /// The tensors of open files, file by file, in the order of the data.
  std::vector<const Entry*> entries() const;

  /// All names: those of open files in the same order, those of others behind them.
  std::vector<std::string_view> names() const;

  /// The same, sorted by their bytes.
  std::vector<std::string_view> sorted_names() const;

  /// Whether `a` stands before `b` in that order.
  bool is_before(const Entry& a, const Entry& b) const;

  /// Whether it has a tensor of that name.
  bool contains(std::string_view name) const;

  /// The tensor of that name, or null. Throws the error of a file that is not open, and SafetensorError where
  /// it does not have what the index assigns to it.
  const Entry* find(std::string_view name) const;

  /// The same. Throws SafetensorError where there is none, too.
  const Entry& entry(std::string_view name) const;

  /// The file that has the tensor. Throws c10::Error for an entry that is not of this checkpoint.
  const OpenFile& file_of(const Entry& entry) const { return *files_[index_of(entry)]; }

  /// Whether any file has metadata. Throws the error of a file that is not open.
  bool has_metadata() const;

  /// All files' metadata, sorted by key; of values for one key the first file's. Without the checksums where
  /// there are several files: each tells of its own tensors alone. Throws likewise.
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

  /// A tensor that the index lists, and the file that it says has it.
  struct Assigned {
    const Entry* entry;  // null where the file is not open, or does not have it
    size_t shard;
  };

  void forget();
  bool open_once(const std::string& given, std::string_view backend, const Opening& opening);
  void open_single(const std::string& path, std::string_view backend);
  bool open_index(const std::string& path, std::string_view backend, const Opening& opening);
  void open_shard(size_t shard, std::string_view backend, const Opening& opening);
  void add_file(std::unique_ptr<OpenFile> file);
  void find_entries();
  const Entry* open_entry(std::string_view name, const Assigned& assigned) const;
  void require_files() const;
  bool is_assigned(const Entry& entry) const;
  size_t index_of(const Entry& entry) const;
  struct Part;
  std::vector<Part> by_file(std::span<const Entry* const> entries) const;

  std::string path_;       // of the file or index
  std::string directory_;  // that was asked for, if it was one
  std::string source_;
  std::vector<std::unique_ptr<OpenFile>> files_;
  /// Where each file begins in `bytes()`.
  std::vector<uint64_t> begins_;
  /// The first entry of each file, and which file that is, sorted: tells whose an entry is.
  using AddressAndFile = std::pair<const Entry*, size_t>;
  std::vector<AddressAndFile> by_address_;

  // Of an index:
  std::shared_ptr<const io::File> index_file_;
  std::optional<format::ShardIndex> index_;
  std::vector<const OpenFile*> shards_;  // null: not open
  std::vector<std::exception_ptr> errors_;
  std::unordered_map<std::string_view, Assigned> by_name_;
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
