#include "tensors/filename.h"

#include <c10/util/Exception.h>

#include <charconv>
#include <optional>

namespace torch_safetensors::tensors {
namespace {

std::optional<std::string> decode_hex(std::string_view digits) {
  if (digits.empty() || digits.size() % 2 != 0) {
    return std::nullopt;
  }
  std::string bytes;
  for (size_t i = 0; i < digits.size(); i += 2) {
    unsigned char byte = 0;
    const char* end = digits.data() + i + 2;
    const auto [parsed_to, error] = std::from_chars(digits.data() + i, end, byte, 16);
    if (error != std::errc() || parsed_to != end || byte == 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(byte));
  }
  return bytes;
}

}  // namespace

std::string decode_filename(const std::string& filename) {
  if (filename.find('\0') == std::string::npos) {
    return filename;
  }
  std::optional<std::string> decoded;
  if (filename.front() == '\0') {
    decoded = decode_hex(std::string_view(filename).substr(1));
  }
  TORCH_CHECK_VALUE(decoded, "embedded null character in path");
  return *std::move(decoded);
}

}  // namespace torch_safetensors::tensors
