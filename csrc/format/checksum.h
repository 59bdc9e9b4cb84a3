#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/dtype.h"
#include "format/header.h"

namespace torch_safetensors::format {

/// The key of `__metadata__` with the checksums of a file's tensors: 32 lower-case hexadecimal digits for
/// each, one behind the other, in the order of the bytes of their names. Readers that do not know it see one
/// more text.
inline constexpr std::string_view kChecksumsKey = "torch_safetensors.xxh3_128";

/// What tells that a tensor is not what was saved: XXH3 (128 bits, seed 0) of its name, a NUL, its dtype and
/// shape as `signature` has them, a NUL, and its bytes. It finds damage, not an attacker, who can compute it
/// as well.
struct Checksum {
  uint64_t high = 0;
  uint64_t low = 0;

  bool operator==(const Checksum&) const = default;
};

/// Computes the checksum of one tensor.
class ChecksumBuilder {
 public:
  ChecksumBuilder(std::string_view name, DType dtype, std::span<const int64_t> shape);
  ~ChecksumBuilder();
  ChecksumBuilder(const ChecksumBuilder&) = delete;
  ChecksumBuilder& operator=(const ChecksumBuilder&) = delete;

  /// The next of its bytes.
  void add(std::span<const std::byte> bytes);

  Checksum build() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// 32 hexadecimal digits.
std::string to_hex(const Checksum& checksum);

/// The value of `kChecksumsKey` for tensors of these names.
std::string join_checksums(std::span<const std::string_view> names, std::span<const Checksum> checksums);

/// Digits of one checksum.
inline constexpr size_t kChecksumDigits = 32;

/// True where a file records checksums, whatever they look like.
bool records_checksums(const Header& header);

/// Where, in the JSON of `header`, the digits of the checksum of one of its tensors begin. Throws
/// SafetensorError where it records nothing, or not as this version writes it.
uint64_t find_recorded_checksum(std::string_view json, const Header& header, const TensorEntry& entry);

/// What a file records of its tensors, in the order of `header.by_name()`. Throws SafetensorError where it
/// records nothing, or not what this version writes.
std::vector<Checksum> recorded_checksums(const Header& header);

}  // namespace torch_safetensors::format
