#include "format/checksum.h"

#define XXH_INLINE_ALL  // no library to link to, nor symbols that could meet another one's
#include <xxhash.h>

#include <charconv>

#include "format/name_order.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

constexpr size_t kHexDigits = 32;

void append_hex(std::string& to, uint64_t value) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (int shift = 60; shift >= 0; shift -= 4) {
    to += kDigits[(value >> shift) & 15];
  }
}

uint64_t parse_hex(std::string_view digits) {
  uint64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), end, value, 16);
  if (result.ec != std::errc() || result.ptr != end) {
    throw SafetensorError("metadata: " + in_quotes(kChecksumsKey) + ": " + in_quotes(digits) +
                          " is not a hexadecimal number");
  }
  return value;
}

std::string_view recorded_text(const Header& header) {
  if (header.metadata()) {
    for (const auto& [key, value] : header.metadata()->pairs()) {
      if (key == kChecksumsKey) {
        return value;
      }
    }
  }
  throw SafetensorError("no checksums to verify: save it with checksum=True (metadata " +
                        in_quotes(kChecksumsKey) + ")");
}

}  // namespace

struct ChecksumBuilder::State {
  XXH3_state_t xxh3;
};

ChecksumBuilder::ChecksumBuilder(std::string_view name, DType dtype, std::span<const int64_t> shape)
    : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(&state_->xxh3);
  std::string what(name);
  what += '\0';
  what += signature(dtype, shape);
  what += '\0';
  add(std::as_bytes(std::span(what)));
}

ChecksumBuilder::~ChecksumBuilder() = default;

void ChecksumBuilder::add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh3, bytes.data(), bytes.size());
}

Checksum ChecksumBuilder::build() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->xxh3);
  return {hash.high64, hash.low64};
}

std::string to_hex(const Checksum& checksum) {
  std::string text;
  append_hex(text, checksum.high);
  append_hex(text, checksum.low);
  return text;
}

std::string join_checksums(std::span<const std::string_view> names, std::span<const Checksum> checksums) {
  std::string text;
  text.reserve(names.size() * kHexDigits);
  for (const uint32_t index : order_names(names).indices) {
    append_hex(text, checksums[index].high);
    append_hex(text, checksums[index].low);
  }
  return text;
}

std::vector<Checksum> recorded_checksums(const Header& header) {
  std::string_view text = recorded_text(header);
  const size_t count = header.tensors().size();
  if (text.size() != count * kHexDigits) {
    throw SafetensorError("metadata: " + in_quotes(kChecksumsKey) + ": " + std::to_string(text.size()) +
                          " digits, but " + std::to_string(count) + " tensors have " +
                          std::to_string(count * kHexDigits));
  }
  std::vector<Checksum> checksums(count);
  for (Checksum& checksum : checksums) {
    checksum = {parse_hex(text.substr(0, kHexDigits / 2)),
                parse_hex(text.substr(kHexDigits / 2, kHexDigits / 2))};
    text.remove_prefix(kHexDigits);
  }
  return checksums;
}

}  // namespace torch_safetensors::format
