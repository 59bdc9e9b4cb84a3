#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/checksum.h"
#include "format/header.h"
#include "format/serialize.h"
#include "tensors/byte_source.h"
#include "tensors/named_tensor.h"

namespace torch_safetensors::tensors {

/// The checksums of tensors that will be saved; `specs` says how they will stand in the header. Tensors on
/// the CPU are read in parallel; what is elsewhere is brought here once for this, and again to be written.
std::vector<format::Checksum> checksums_of(std::span<const NamedTensor> tensors,
                                           std::span<const format::TensorSpec> specs);

/// The metadata of a file that records these checksums, one for each of `specs`; or none, and then none that
/// the caller brought from another file either, which would accuse this one.
std::optional<format::Metadata> with_checksums(const std::optional<format::Metadata>& metadata,
                                               std::span<const format::TensorSpec> specs,
                                               const std::optional<std::vector<format::Checksum>>& checksums);

/// What a checksum that differs from the file's own means.
inline constexpr std::string_view kDamaged = "damaged";

/// The checksum of an entry that has these bytes.
format::Checksum checksum_of(const format::TensorEntry& entry, std::span<const std::byte> bytes);

/// What `header` records of `entries`, in their order. Throws SafetensorError that names `source` where there
/// are no checksums.
std::vector<format::Checksum> recorded_of(const std::string& source, const format::Header& header,
                                          std::span<const format::TensorEntry* const> entries);

/// Throws SafetensorError that names `source`, `fault` and the first of `entries` for which `found` is not
/// what was `recorded`.
void compare_checksums(const std::string& source, std::span<const format::TensorEntry* const> entries,
                       std::span<const format::Checksum> recorded, std::span<const format::Checksum> found,
                       std::string_view fault = kDamaged);

/// Compares dense CPU tensors with what `header` records of `entries`. Throws SafetensorError that names
/// `source`, `fault` and the first that differs, in the order of the data, or says that there are no
/// checksums.
void verify_tensors(const std::string& source, const format::Header& header,
                    std::span<const format::TensorEntry* const> entries, std::span<const at::Tensor> tensors,
                    std::string_view fault = kDamaged);

/// The same for bytes that begin at `position + entry.begin` in `bytes`, read in parallel and block by block:
/// for tensors that go where they cannot be looked at.
void verify_bytes(const std::string& source, const format::Header& header,
                  std::span<const format::TensorEntry* const> entries, const ByteSource& bytes,
                  uint64_t position);

}  // namespace torch_safetensors::tensors
