#include "io/temporary_name.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <random>

#include "io/hash_digits.h"

namespace torch_safetensors::io {
namespace {

constexpr std::string_view kBegin = ".st-";
constexpr size_t kDigits = 16;

/// Takes `text` off the front.
bool skip(std::string_view& rest, std::string_view text) {
  if (!rest.starts_with(text)) {
    return false;
  }
  rest.remove_prefix(text.size());
  return true;
}

bool take_digits(std::string_view& rest, std::string& digits) {
  digits = rest.substr(0, kDigits);
  rest.remove_prefix(digits.size());
  return digits.size() == kDigits && std::all_of(digits.begin(), digits.end(), [](char c) {
           return ('0' <= c && c <= '9') || ('a' <= c && c <= 'f');
         });
}

/// As std::to_string writes it.
bool take_slot(std::string_view& rest, int& slot) {
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), slot);
  const auto size = static_cast<size_t>(end - rest.data());
  if (error != std::errc() || slot < 0 || slot >= kMaxSlots || rest.substr(0, size) != std::to_string(slot)) {
    return false;
  }
  rest.remove_prefix(size);
  return true;
}

}  // namespace

std::string temporary_prefix(std::string_view target_name, std::string_view domain) {
  std::string prefix = std::string(kBegin) + hash_digits(target_name);
  if (!domain.empty()) {
    prefix.append(".").append(domain);
  }
  return prefix + "-";
}

std::string random_token() {
  std::random_device source;  // of the system, and not of a generator that a forked child shares
  return hex_digits(uint64_t{source()} << 32 | source());
}

std::optional<TemporaryName> parse_temporary_name(std::string_view name) {
  TemporaryName parts{{}, {}, 0, {}};
  std::string_view rest = name;
  if (!skip(rest, kBegin) || !take_digits(rest, parts.target) ||
      (skip(rest, ".") && !take_digits(rest, parts.domain)) || !skip(rest, "-") ||
      !take_slot(rest, parts.slot) || (skip(rest, "-") && !take_digits(rest, parts.token)) || !rest.empty()) {
    return std::nullopt;
  }
  return parts;
}

}  // namespace torch_safetensors::io
