#include "format/json_number.h"

#include <algorithm>
#include <charconv>
#include <system_error>

namespace torch_safetensors::format {
namespace {

/// 2^1024 - 2^970, the smallest number that is rounded up beyond the largest double.
constexpr std::string_view kTooLarge =
    "17976931348623158079372897140530341507993413271003782693617377898044496829276475094664901797758720709633"
    "02864166928879109465555478519404026306574886715058206819089020007083836762738548458177115317644757302700"
    "69855571366959622842914819860834936475292719074168444365510704342711559699508093042880177904174497792";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The exponent behind an e, or the nearest of +-10^9: a header has no digits to make up for more.
int64_t exponent_of(std::string_view text) {
  constexpr int64_t kLimit = 1'000'000'000;
  int64_t value = 0;
  for (const char c : text) {
    if (is_digit(c)) {
      value = std::min(kLimit, value * 10 + (c - '0'));
    }
  }
  return text.starts_with('-') ? -value : value;
}

/// Compares the digits, from the first one that is not 0 on, with those of kTooLarge.
bool digits_reach_limit(std::string_view digits) {
  for (const char limit : kTooLarge) {
    if (digits.starts_with('.')) {
      digits.remove_prefix(1);
    }
    const char digit = digits.empty() ? '0' : digits.front();
    if (digit != limit) {
      return digit > limit;
    }
    digits.remove_prefix(digits.empty() ? 0 : 1);
  }
  return true;
}

}  // namespace

std::optional<uint64_t> to_uint64(std::string_view text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end ? std::optional(value) : std::nullopt;
}

std::string_view kind_of_number(std::string_view text) {
  if (text.find_first_of(".eE") != text.npos) {
    return "a number that is not an integer";
  }
  return text.front() == '-' ? "a negative number" : "a number over 18446744073709551615";
}

bool fits_double(std::string_view text) {
  const size_t mantissa_size = std::min(text.find_first_of("eE"), text.size());
  const std::string_view mantissa = text.substr(0, mantissa_size);
  const size_t first = mantissa.find_first_of("123456789");
  if (first == mantissa.npos) {
    return true;
  }
  // As 0.d... times ten to `magnitude`, d the first digit that is not 0.
  const size_t point = std::min(mantissa.find('.'), mantissa.size());
  int64_t magnitude = static_cast<int64_t>(point) - static_cast<int64_t>(first) + (first > point ? 1 : 0);
  if (mantissa_size < text.size()) {
    magnitude += exponent_of(text.substr(mantissa_size + 1));
  }
  constexpr auto kLimit = static_cast<int64_t>(kTooLarge.size());
  return magnitude < kLimit || (magnitude == kLimit && !digits_reach_limit(mantissa.substr(first)));
}

}  // namespace torch_safetensors::format
