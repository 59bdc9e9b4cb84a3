#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "format/dtype.h"
#include "format/fixed_buffer.h"
#include "format/metadata.h"

namespace torch_safetensors::format {

/// Bytes of the length field in front of the header.
inline constexpr uint64_t kPrefixSize = 8;

/// The longest header the reference accepts, in bytes.
inline constexpr uint64_t kMaxHeaderSize = 100'000'000;

/// One tensor as the header describes it. The views point into the `Header`.
struct TensorEntry {
  std::string_view name;
  DType dtype;
  std::span<const int64_t> shape;
  /// Where its bytes lie, relative to the end of the header: [begin, end).
  uint64_t begin;
  uint64_t end;

  uint64_t nbytes() const { return end - begin; }
};

/// A header that passed every rule of the format; code that holds one checks nothing again.
/// Tensors lie back to back and cover the data exactly, names are unique, shapes and sizes agree.
class Header {
 public:
  Header(Header&&) noexcept = default;
  Header& operator=(Header&&) noexcept = default;
  Header(const Header&) = delete;
  Header& operator=(const Header&) = delete;

  /// The tensors in the order of their data.
  std::span<const TensorEntry> tensors() const { return tensors_; }

  /// The tensor of that name, or null. Logarithmic.
  const TensorEntry* find(std::string_view name) const;

  /// Indices into `tensors()`, sorted by the bytes of the names.
  std::span<const uint32_t> by_name() const { return by_name_; }

  /// Nothing where the header has no `__metadata__`, or null for it.
  const std::optional<Metadata>& metadata() const { return metadata_; }

 private:
  friend Header parse_header(std::string_view json, std::optional<uint64_t> data_size);
  Header() = default;

  FixedBuffer<char> names_;
  FixedBuffer<int64_t> dims_;
  std::vector<TensorEntry> tensors_;
  std::vector<uint32_t> by_name_;
  std::optional<Metadata> metadata_;
};

/// The length of the JSON that follows `prefix`, the first bytes (at most 8 are looked at) of a
/// file of `file_size` bytes. Throws SafetensorError if the file is too short for a prefix or for
/// the header it announces, or if that header is longer than `kMaxHeaderSize`.
uint64_t parse_header_size(std::string_view prefix, uint64_t file_size);

/// Parses and validates the JSON of a header that is followed by `data_size` bytes of data; nothing for data
/// that is yet to come, whose size the caller holds to `check_data_size` (no_holes.h) once it is known.
/// Throws SafetensorError naming the tensor and the numbers; never allocates by a number that
/// stands in the header. Linear in `json.size()`, bar the sorting of names and offsets.
Header parse_header(std::string_view json, std::optional<uint64_t> data_size);

}  // namespace torch_safetensors::format
