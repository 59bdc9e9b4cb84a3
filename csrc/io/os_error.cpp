#include "io/os_error.h"

#include <system_error>

namespace torch_safetensors::io {
namespace {

unsigned char byte_at(std::string_view text, size_t index) {
  return index < text.size() ? static_cast<unsigned char>(text[index]) : 0;
}

bool is_between(unsigned char byte, unsigned char low, unsigned char high) {
  return low <= byte && byte <= high;
}

/// The length of the UTF-8 sequence that `text` begins with, or 0 if that is none: table 3-7 of the Unicode
/// standard, which leaves out overlong forms, surrogates and what is above U+10FFFF.
size_t utf8_length(std::string_view text) {
  const unsigned char first = byte_at(text, 0);
  if (first < 0x80) {
    return 1;
  }
  const size_t length = is_between(first, 0xC2, 0xDF)   ? 2
                        : is_between(first, 0xE0, 0xEF) ? 3
                        : is_between(first, 0xF0, 0xF4) ? 4
                                                        : 0;
  if (length == 0) {
    return 0;
  }
  const unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (!is_between(byte_at(text, 1), low, high)) {
    return 0;
  }
  for (size_t i = 2; i < length; ++i) {
    if (!is_between(byte_at(text, i), 0x80, 0xBF)) {
      return 0;
    }
  }
  return length;
}

void append_escaped(std::string& out, unsigned char byte) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  out += "\\x";
  out += kDigits[byte >> 4];
  out += kDigits[byte & 15];
}

/// `text` as valid UTF-8 without control characters; those of `with_backslash` get one in front.
std::string escape(std::string_view text, std::string_view with_backslash) {
  std::string out;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const unsigned char first = byte_at(text, 0);
    if (length == 0 || first < 0x20 || first == 0x7F) {
      append_escaped(out, first);
      text.remove_prefix(1);
      continue;
    }
    if (with_backslash.find(text[0]) != std::string_view::npos) {
      out += '\\';
    }
    out += text.substr(0, length);
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace

std::string os_error_text(int error_number) {
  // The locale decides about language and encoding, so this is text of others too.
  return escape(std::generic_category().message(error_number), "");
}

std::string quoted_path(std::string_view path) { return "'" + escape(path, "\\'") + "'"; }

void throw_os_error(int error_number, const std::string& path) {
  throw_os_error(error_number, os_error_text(error_number), path);
}

void throw_os_error(int error_number, std::string_view text, const std::string& path) {
  std::string message = "[Errno " + std::to_string(error_number) + "] ";
  message += text;
  message += ": " + quoted_path(path);
  throw OsError(error_number, message);
}

}  // namespace torch_safetensors::io
