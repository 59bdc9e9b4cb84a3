#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/header.h"

namespace torch_safetensors::format {

/// A tensor as the JSON has it. Offsets and not views, since the vectors still grow.
struct JsonTensor {
  size_t name_begin;
  size_t name_size;
  size_t dims_begin;
  size_t dims_size;
  DType dtype;
  uint64_t begin;
  uint64_t end;
};

/// The content of a header's JSON, in its order; nothing but its form is checked.
struct JsonHeader {
  std::vector<char> names;
  std::vector<int64_t> dims;
  std::vector<JsonTensor> tensors;
  std::optional<Metadata> metadata;
};

/// Parses the JSON of a header. Throws SafetensorError with the place and the reason.
JsonHeader parse_header_json(std::string_view json);

}  // namespace torch_safetensors::format
