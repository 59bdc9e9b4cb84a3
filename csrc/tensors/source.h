#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/header.h"
#include "tensors/storage.h"

namespace torch_safetensors::tensors {

/// Throws SafetensorError `<source>: <message>`. A source is a printable path, or "bytes".
[[noreturn]] void throw_malformed(const std::string& source, const std::string& message);

/// Parses a header for `source`, so that its name stands in front of every error.
format::Header parse_header_of(const std::string& source, std::string_view json,
                               std::optional<uint64_t> data_size);

/// Holds a header that was parsed without it to the size of the data.
void check_data_size_of(const std::string& source, const format::Header& header, uint64_t data_size);

/// The length of the header of `source`; `prefix` holds its first bytes.
uint64_t parse_header_size_of(const std::string& source, std::string_view prefix, uint64_t file_size);

/// The entry of that name. Throws SafetensorError.
const format::TensorEntry& find_entry(const std::string& source, const format::Header& header,
                                      std::string_view name);

/// All entries, in the order of their data.
std::vector<const format::TensorEntry*> entries_of(const format::Header& header);

/// dtype and sizes of a tensor in torch's terms: the last dimension of F4 is halved. Throws SafetensorError
/// where torch cannot hold the tensor (F6, an odd number of F4 in the last dimension).
TensorType tensor_type(const std::string& source, const format::TensorEntry& entry);

}  // namespace torch_safetensors::tensors
