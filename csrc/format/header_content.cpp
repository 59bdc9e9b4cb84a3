#include "format/header_content.h"

#include <algorithm>
#include <cstdint>

namespace torch_safetensors::format {
namespace {

constexpr std::string_view kShortestEntry = R"("":{"dtype":"U8","shape":[],"data_offsets":[0,0]})";

/// In blocks whose counts fit in a byte: the compiler then takes sixteen bytes and more at once.
size_t count_commas(std::string_view text) {
  constexpr size_t kBlock = 255;
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += kBlock) {
    uint8_t in_block = 0;
    for (const char c : text.substr(at, kBlock)) {
      in_block = static_cast<uint8_t>(in_block + (c == ',' ? 1 : 0));
    }
    count += in_block;
  }
  return count;
}

/// An array has one comma less than numbers; that of a shape's tensor has others, bar a first that is cut
/// short.
size_t most_dimensions(std::string_view json) {
  return std::min(count_commas(json) + 1, json.size() / 2 + 1);
}

}  // namespace

HeaderContent::HeaderContent(std::string_view json) : names(json.size()), dims(most_dimensions(json)) {
  // Memory that is not touched costs nothing. Growing step by step would take more of it for a while, and
  // time.
  tensors.reserve(json.size() / kShortestEntry.size());
}

}  // namespace torch_safetensors::format
