#include "shared/filename.h"

#include <charconv>
#include <string_view>

namespace torch_safetensors::shared {
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

std::optional<std::string> decode_filename(const std::string& filename) {
  if (filename.find('\0') == std::string::npos) {
    return filename;
  }
  if (filename.front() != '\0') {
    return std::nullopt;
  }
  return decode_hex(std::string_view(filename).substr(1));
}

std::string encode_filename(const std::string& path) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string filename(1, '\0');
  for (const unsigned char byte : path) {
    filename += {kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return filename;
}

}  // namespace torch_safetensors::shared
