#include "io/os_error.h"

#include <system_error>

namespace torch_safetensors::io {
namespace {

/// A message must be printable whatever bytes a path has.
std::string escaped(std::string_view path) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      text += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

void throw_os_error(int error_number, const std::string& path) {
  throw_os_error(error_number, std::generic_category().message(error_number), path);
}

void throw_os_error(int error_number, std::string_view text, const std::string& path) {
  throw OsError(error_number, "[Errno " + std::to_string(error_number) + "] " + std::string(text) + ": '" +
                                  escaped(path) + "'");
}

}  // namespace torch_safetensors::io
