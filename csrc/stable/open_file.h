#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/header.h"
#include "io/file.h"
#include "stable/new_tensor.h"

namespace torch_safetensors::stable {

/// The header in front of the first `size` bytes of `source`, of which `bytes` holds as many as it needs, or
/// as there are. `data_begin` becomes where the data begins.
format::Header parse_header(const std::string& source, std::string_view bytes, uint64_t size,
                            uint64_t& data_begin);

/// A safetensors file that is open and whose header is valid.
class OpenFile {
 public:
  /// `filename` as operators pass it; `backend` is "auto", "mmap" or "pread". Throws std::invalid_argument
  /// for another one, OsError, and SafetensorError.
  OpenFile(const std::string& filename, std::string_view backend);

  const format::Header& header() const { return header_; }

  /// The path, as it stands in front of messages.
  const std::string& source() const { return source_; }

  /// The entry of that name. Throws SafetensorError.
  const format::TensorEntry& entry(std::string_view name) const;

  /// The tensors, each in a storage of its own. What goes to another device is read into memory first.
  std::vector<Tensor> read(std::span<const format::TensorEntry* const> entries, Device device) const;

  /// Has the system begin to read their bytes into memory (io/will_need.h).
  void will_need(std::span<const format::TensorEntry* const> entries) const;

 private:
  format::Header read_header();
  std::vector<Tensor> read_mapped(std::span<const format::TensorEntry* const> entries) const;
  std::vector<Tensor> read_copied(std::span<const format::TensorEntry* const> entries) const;

  io::File file_;
  std::string source_;
  bool is_mapped_;
  uint64_t data_begin_ = 0;
  format::Header header_;
};

}  // namespace torch_safetensors::stable
