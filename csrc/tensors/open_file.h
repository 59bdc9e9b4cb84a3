#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/header.h"
#include "io/huge_pages.h"
#include "io/mapping.h"
#include "io/read_ahead.h"
#include "io/steady_file.h"
#include "tensors/byte_source.h"
#include "tensors/storage.h"
#include "tensors/strided_runs.h"
#include "tensors/transfer_options.h"

namespace torch_safetensors::tensors {

/// How bytes come from a file.
enum class Backend {
  kMmap,   ///< Lazily, as private copy-on-write pages.
  kPread,  ///< At once, into memory of our own.
};

/// A mapping of a file or a part of it that tensors keep alive.
class SharedMapping : public c10::intrusive_ptr_target {
 public:
  explicit SharedMapping(const io::File& file) : mapping_(file) {}
  SharedMapping(const io::File& file, uint64_t offset, size_t size) : mapping_(file, offset, size) {}
  std::span<std::byte> bytes() const { return mapping_.bytes(); }

  /// Keeps what reads its file in the background alive, too.
  void keep(std::shared_ptr<io::ReadAhead> ahead) { ahead_ = std::move(ahead); }

 private:
  io::Mapping mapping_;
  std::shared_ptr<io::ReadAhead> ahead_;
};

/// A safetensors file that is open and whose header is valid. Safe to use from several threads.
///
/// No two tensors that it gives share memory, whatever they are parts of: writing to one shows neither in
/// another nor in what is read later.
class OpenFile {
 public:
  /// `filename` as operators pass it; `backend` is "auto", "mmap" or "pread". Throws ValueError
  /// (c10) for another one, OsError, and SafetensorError.
  OpenFile(const std::string& filename, std::string_view backend);

  /// A file of those that `index` lists; `path` as it is. Keeps a descriptor only while few of them are kept
  /// (io/steady_file.h); what it reads is of the version that was opened, or it throws OsError: ESTALE.
  OpenFile(std::string path, std::string_view backend, std::shared_ptr<const io::File> index);

  const format::Header& header() const { return header_; }

  /// The path, as it stands in front of messages.
  const std::string& source() const { return source_; }

  /// Whether tensors on the CPU are its pages.
  bool is_mapped() const { return backend_ == Backend::kMmap; }

  /// The entry of that name. Throws SafetensorError.
  const format::TensorEntry& entry(std::string_view name) const;

  const std::shared_ptr<const io::SteadyFile>& file() const { return file_; }

  /// Has the mapping that the next tensors are pages of keep this, too.
  void keep(std::shared_ptr<io::ReadAhead> ahead) const;

  /// The bytes of the file, as long as this lives.
  FileBytes bytes() const { return FileBytes(*file_); }

  /// Where the entry's bytes begin in the file.
  uint64_t position(const format::TensorEntry& entry) const { return data_begin_ + entry.begin; }

  /// The tensors, each in a storage of its own; with mmap they keep the mapping alive. For devices the file
  /// is always read, in parallel and through bounded host memory (device_load.h). `verify`: throws
  /// SafetensorError unless their bytes have the checksums that the file records; what goes to a device is
  /// read once more for this. Tells Progress.
  std::vector<at::Tensor> read(std::span<const format::TensorEntry* const> entries, c10::Device device,
                               const TransferOptions& options = {}, bool verify = false) const;

  /// The same for one.
  at::Tensor read(const format::TensorEntry& entry, c10::Device device) const;

  /// Has the system begin to read their bytes into memory (io/will_need.h), for a `read` or `read_into` to
  /// come.
  void will_need(std::span<const format::TensorEntry* const> entries) const;

  /// Throws SafetensorError unless the bytes of all tensors have the checksums that the file records.
  void verify() const;

  /// A dense copy of a part of a tensor; reads no more than it needs, bar gaps shorter than a page.
  /// A large contiguous part of a mapped file is not copied, but mapped once more.
  at::Tensor read_view(const format::TensorEntry& entry, const StridedView& view, c10::Device device) const;

  /// The whole of each entry's bytes into memory of the caller, which must be as large. Large amounts in
  /// parallel. `fresh` says that the memory was not touched before.
  void read_into(std::span<const format::TensorEntry* const> entries,
                 std::span<const std::span<std::byte>> destinations, io::HugePages* fresh = nullptr,
                 const TransferOptions& options = {}) const;

 private:
  std::vector<at::Tensor> read_or_map(std::span<const format::TensorEntry* const> entries, c10::Device device,
                                      const TransferOptions& options, bool verify) const;
  std::vector<at::Tensor> read_to(std::span<const format::TensorEntry* const> entries, c10::Device device,
                                  const TransferOptions& options) const;
  std::vector<at::Tensor> read_mapped(std::span<const format::TensorEntry* const> entries) const;
  std::vector<at::Tensor> read_copied(std::span<const format::TensorEntry* const> entries,
                                      const TransferOptions& options) const;
  at::Tensor read_part(const TensorType& type, uint64_t begin) const;
  std::vector<c10::intrusive_ptr<SharedMapping>> claim(
      std::span<const format::TensorEntry* const> entries) const;
  void map(const io::File& file) const;
  std::shared_ptr<const io::Mapping> pages_to_read() const;
  format::Header read_header(const io::File& file);

  OpenFile(io::File file, std::string_view backend, std::shared_ptr<const io::File> index);

  std::string source_;
  Backend backend_;
  uint64_t data_begin_ = 0;
  format::Header header_;
  std::shared_ptr<const io::SteadyFile> file_;
  mutable std::mutex mapping_mutex_;
  /// What tensors are pages of, and the entries whose pages somebody has, and may have written to.
  mutable c10::intrusive_ptr<SharedMapping> mapping_;
  mutable std::vector<bool> is_handed_out_;
  /// Pages that nobody writes to.
  mutable std::shared_ptr<const io::Mapping> pages_to_read_;
};

}  // namespace torch_safetensors::tensors
