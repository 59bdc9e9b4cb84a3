#include "format/header.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

uint64_t read_little_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < kPrefixSize; ++i) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return value;
}

}  // namespace

uint64_t parse_header_size(std::string_view prefix, uint64_t file_size) {
  if (file_size < kPrefixSize || prefix.size() < kPrefixSize) {
    throw SafetensorError("header too small: " + std::to_string(file_size) +
                          " bytes, but the length field alone has " + std::to_string(kPrefixSize));
  }
  const uint64_t size = read_little_endian(prefix);
  if (size > kMaxHeaderSize) {
    throw SafetensorError("header too large: " + std::to_string(size) + " bytes, the limit is " +
                          std::to_string(kMaxHeaderSize));
  }
  if (size > file_size - kPrefixSize) {
    throw SafetensorError("invalid header length: the header of " + std::to_string(size) +
                          " bytes ends at byte " + std::to_string(kPrefixSize + size) + " of a file of " +
                          std::to_string(file_size) + " bytes");
  }
  return size;
}

}  // namespace torch_safetensors::format
