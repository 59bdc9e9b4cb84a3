#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "format/json_special.h"

namespace torch_safetensors::format {

/// Takes the tokens of JSON from a text, those that need no conversion: strings without escapes and unsigned
/// integers. A function returns false where the text goes on otherwise, and is then of no use any more, bar
/// `take`, which leaves the place as it is. Whitespace before a token is skipped.
class JsonScanner {
 public:
  /// `text` must outlive the scanner and the strings taken.
  explicit JsonScanner(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  /// Takes `c`, one of JSON's punctuation characters, if it is next.
  bool take(char c) {
    if (at_ != end_ && *at_ == c) {
      ++at_;
      return true;
    }
    const char* const before = at_;
    skip_whitespace();
    return at_ != before && take(c);
  }

  /// Takes a string without escapes. `ascii` tells that it is valid UTF-8 for that reason.
  bool string(std::string_view& text, bool& ascii) {
    if (!take('"')) {
      return false;
    }
    const char* const begin = at_;
    uint64_t seen = 0;
    uint64_t word = 0;
    uint64_t special = 0;
    for (; end_ - at_ >= kWord; at_ += kWord) {
      std::memcpy(&word, at_, kWord);
      special = special_bytes(word);
      if (special != 0) {
        break;
      }
      seen |= word;
    }
    if (special != 0) {
      const int place = std::countr_zero(special) / 8;
      seen |= word & ((uint64_t{1} << (8 * place)) - 1);
      at_ += place;
    } else {
      for (; at_ != end_ && !is_special(*at_); ++at_) {
        seen |= static_cast<unsigned char>(*at_);
      }
    }
    if (at_ == end_ || *at_ != '"') {
      return false;
    }
    text = {begin, static_cast<size_t>(at_ - begin)};
    ascii = (seen & 0x8080808080808080) == 0;
    ++at_;
    return true;
  }

  /// Takes an unsigned integer of 64 bits. What may follow it is the caller's to check: 1.0 leaves the point.
  bool number(uint64_t& value) {
    skip_whitespace();
    const char* const begin = at_;
    value = 0;
    for (; at_ != end_; ++at_) {
      const unsigned digit = static_cast<unsigned char>(*at_) - unsigned{'0'};
      if (digit > 9) {
        break;
      }
      value = value * 10 + digit;
    }
    const auto digits = at_ - begin;
    return digits > 0 && digits <= kSafeDigits && (*begin != '0' || digits == 1);
  }

  /// True if only whitespace follows.
  bool at_end() {
    skip_whitespace();
    return at_ == end_;
  }

 private:
  static constexpr int kWord = sizeof(uint64_t);
  /// The most of which all numbers fit in 64 bits.
  static constexpr int kSafeDigits = 19;

  void skip_whitespace() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) {
      ++at_;
    }
  }

  const char* at_;
  const char* end_;
};

}  // namespace torch_safetensors::format
