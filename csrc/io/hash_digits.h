#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace torch_safetensors::io {

/// 16 hexadecimal digits.
inline std::string hex_digits(uint64_t value) {
  std::array<char, 17> digits;
  std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(value));
  return digits.data();
}

/// Those of 64-bit FNV-1a: equal in every program, unlike std::hash.
inline std::string hash_digits(std::string_view text) {
  uint64_t value = 0xCBF29CE484222325;
  for (const char c : text) {
    value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  return hex_digits(value);
}

}  // namespace torch_safetensors::io
