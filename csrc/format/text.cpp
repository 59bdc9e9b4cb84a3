#include "format/text.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace torch_safetensors::format {
namespace {

static_assert(std::endian::native == std::endian::little, "bytes are read as words");

constexpr size_t kLongest = 200;

/// A header can list millions.
constexpr size_t kMostDimensions = 16;

/// Bytes of the UTF-8 sequence at the start of `text`; 0 if there is none (RFC 3629, table 3-7 of Unicode).
size_t sequence_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](size_t i, unsigned char low = 0x80, unsigned char high = 0xBF) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned char lead = byte(0);
  if (lead < 0x80) {
    return 1;
  }
  if (lead >= 0xC2 && lead <= 0xDF) {
    return continues(1) ? 2 : 0;
  }
  if (lead >= 0xE0 && lead <= 0xEF) {
    // Neither overlong forms nor surrogates.
    const bool second = continues(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF);
    return second && continues(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const bool second = continues(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF);
    return second && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

void append_escaped(std::string& to, unsigned char byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  to += "\\x";
  to += kDigits[byte >> 4];
  to += kDigits[byte & 15];
}

}  // namespace

std::string printable(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t length = sequence_length(text);
    const auto first = static_cast<unsigned char>(text[0]);
    if (length == 0 || first < 0x20 || first == 0x7F) {
      append_escaped(result, first);
      text.remove_prefix(1);
    } else {
      result += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return result;
}

std::string in_quotes(std::string_view text) {
  if (text.size() <= kLongest) {
    return "'" + printable(text) + "'";
  }
  // A sequence that the cut splits comes out escaped.
  return "'" + printable(text.substr(0, kLongest / 2)) + "[...]" +
         printable(text.substr(text.size() - kLongest / 2)) + "' (" + std::to_string(text.size()) + " bytes)";
}

size_t utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    // Headers are ASCII but for a few names: eight bytes at a time.
    uint64_t word;
    if (text.size() - at >= sizeof(word)) {
      std::memcpy(&word, text.data() + at, sizeof(word));
      if ((word & 0x8080808080808080) == 0) {
        at += sizeof(word);
        continue;
      }
    }
    const size_t length = sequence_length(text.substr(at));
    if (length == 0) {
      break;
    }
    at += length;
  }
  return at;
}

bool has_surrogate(std::string_view text) {
  for (size_t at = text.find('\xED'); at != text.npos; at = text.find('\xED', at + 1)) {
    if (at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) >= 0xA0) {
      return true;
    }
  }
  return false;
}

uint64_t sortable_prefix(std::string_view text) {
  uint64_t word = 0;
  if (text.size() >= sizeof(word)) {
    std::memcpy(&word, text.data(), sizeof(word));  // all at once where there is enough of it
  } else {
    std::memcpy(&word, text.data(), text.size());
  }
  return __builtin_bswap64(word);
}

std::string signature(DType dtype, std::span<const int64_t> shape) {
  std::string text(dtype_name(dtype));
  char separator = '[';
  for (const int64_t size : shape) {
    text += separator + std::to_string(size);
    separator = ',';
  }
  return text + (shape.empty() ? "[]" : "]");
}

std::string describe(DType dtype, std::span<const int64_t> shape) {
  std::string text(dtype_name(dtype));
  text += " [";
  for (size_t i = 0; i < std::min(shape.size(), kMostDimensions); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  if (shape.size() > kMostDimensions) {
    return text + ", ...] (" + std::to_string(shape.size()) + " dimensions)";
  }
  return text + "]";
}

}  // namespace torch_safetensors::format
