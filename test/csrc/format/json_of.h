#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "error_of.h"
#include "format/header_json.h"

namespace torch_safetensors::format {

/// A header of one U8 tensor `w` of 4 bytes, whose fields can be replaced by other JSON.
struct JsonOf {
  std::string dtype = R"("U8")";
  std::string shape = "[4]";
  std::string data_offsets = "[0,4]";
  /// Behind the known fields, with its comma.
  std::string more = "";

  operator std::string() const {
    return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + data_offsets +
           more + "}}";
  }
};

/// `,"x":<value>`: a field that the format does not know.
inline std::string unknown_field(const std::string& value) { return R"(,"x":)" + value; }

/// `levels` arrays within each other.
inline std::string nested(int levels) {
  return std::string(static_cast<size_t>(levels), '[') + std::string(static_cast<size_t>(levels), ']');
}

inline HeaderContent parse(const std::string& json) { return parse_header_json(json); }

/// What a refused header says behind `invalid JSON in header at byte `.
inline std::string refusal(const std::string& json) {
  const std::string error = error_of([&] { parse(json); });
  const std::string prefix = "invalid JSON in header at byte ";
  return error.starts_with(prefix) ? error.substr(prefix.size()) : error;
}

inline std::string name_of(const HeaderContent& header, size_t index = 0) {
  return std::string(header.tensors.at(index).name);
}

/// Those of all tensors, one after the other.
inline std::vector<int64_t> dims_of(const HeaderContent& header) {
  const auto dims = header.dims.values();
  return {dims.begin(), dims.end()};
}

}  // namespace torch_safetensors::format
