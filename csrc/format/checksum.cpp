#include "format/checksum.h"

#define XXH_INLINE_ALL  // no library to link to, nor symbols that could meet another one's
#include <xxhash.h>

#include <charconv>
#include <optional>

#include "format/name_order.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

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

std::optional<std::string_view> find_recorded_text(const Header& header) {
  if (header.metadata()) {
    for (const auto& [key, value] : header.metadata()->pairs()) {
      if (key == kChecksumsKey) {
        return value;
      }
    }
  }
  return std::nullopt;
}

std::string_view recorded_text(const Header& header) {
  if (const auto text = find_recorded_text(header)) {
    return *text;
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
  text.reserve(names.size() * kChecksumDigits);
  for (const uint32_t index : order_names(names).indices) {
    append_hex(text, checksums[index].high);
    append_hex(text, checksums[index].low);
  }
  return text;
}

bool records_checksums(const Header& header) { return find_recorded_text(header).has_value(); }

uint64_t find_recorded_checksum(std::string_view json, const Header& header, const TensorEntry& entry) {
  const size_t count = recorded_checksums(header).size();
  std::string pair = "\"" + std::string(kChecksumsKey) + "\":\"";
  const size_t in_pair = pair.size();
  pair.append(recorded_text(header)) += '"';
  // Within a text, its quotes would be escaped. The character in front tells it from the end of another key.
  const size_t found = json.find(pair);
  const bool is_unique = found != json.npos && json.find(pair, found + 1) == json.npos;
  if (!is_unique || found == 0 || (json[found - 1] != '{' && json[found - 1] != ',')) {
    throw SafetensorError("metadata: " + in_quotes(kChecksumsKey) +
                          ": not written as save_file writes it; save the file anew");
  }
  const auto index = static_cast<size_t>(&entry - header.tensors().data());
  size_t rank = 0;
  while (rank < count && header.by_name()[rank] != index) {
    ++rank;
  }
  return found + in_pair + rank * kChecksumDigits;
}

std::vector<Checksum> recorded_checksums(const Header& header) {
  std::string_view text = recorded_text(header);
  const size_t count = header.tensors().size();
  if (text.size() != count * kChecksumDigits) {
    throw SafetensorError("metadata: " + in_quotes(kChecksumsKey) + ": " + std::to_string(text.size()) +
                          " digits, but " + std::to_string(count) + " tensors have " +
                          std::to_string(count * kChecksumDigits));
  }
  std::vector<Checksum> checksums(count);
  for (Checksum& checksum : checksums) {
    checksum = {parse_hex(text.substr(0, kChecksumDigits / 2)),
                parse_hex(text.substr(kChecksumDigits / 2, kChecksumDigits / 2))};
    text.remove_prefix(kChecksumDigits);
  }
  return checksums;
}

}  // namespace torch_safetensors::format
