#pragma once

#include <cstdint>
#include <optional>

namespace torch_safetensors::format {

/// `a + b`, or nothing if it does not fit.
inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  const uint64_t sum = a + b;
  return sum < a ? std::nullopt : std::optional(sum);
}

/// `a * b`, or nothing if it does not fit.
inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  if (b != 0 && a > UINT64_MAX / b) {
    return std::nullopt;
  }
  return a * b;
}

}  // namespace torch_safetensors::format
