#include "format/serialize.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <functional>

#include "format/checked.h"
#include "format/json_special.h"
#include "format/name_order.h"
#include "format/tensor_size.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

/// The JSON is padded so that the data begins at a multiple of this, whatever alignment is asked for.
constexpr int64_t kMinAlignment = 8;

/// A page: mapped files begin at one, and direct I/O needs no more.
constexpr int64_t kMaxAlignment = 4096;

/// Escapes as serde_json does, which is what makes files the reference's to the byte: the short ones,
/// lower-case \u00xx for other control characters, and nothing else.
void append_escaped(std::string& to, char c) {
  constexpr std::string_view kShort = "\b\t\n\f\r\"\\";
  constexpr std::string_view kLetters = "btnfr\"\\";
  constexpr char kDigits[] = "0123456789abcdef";
  if (const size_t found = kShort.find(c); found != kShort.npos) {
    to += '\\';
    to += kLetters[found];
  } else {
    to += "\\u00";
    to += kDigits[c >> 4];
    to += kDigits[c & 15];
  }
}

/// Bytes of `text` before the first one that has to be escaped.
size_t unescaped_prefix(std::string_view text) {
  size_t at = 0;
  for (uint64_t word; text.size() - at >= sizeof(word); at += sizeof(word)) {
    std::memcpy(&word, text.data() + at, sizeof(word));
    if (special_bytes(word) != 0) {
      break;
    }
  }
  while (at < text.size() && !is_special(text[at])) {
    ++at;
  }
  return at;
}

void append_string(std::string& to, std::string_view text) {
  to += '"';
  while (true) {
    const size_t size = unescaped_prefix(text);
    to += text.substr(0, size);
    if (size == text.size()) {
      break;
    }
    append_escaped(to, text[size]);
    text.remove_prefix(size + 1);
  }
  to += '"';
}

template <typename Integer>
void append_number(std::string& to, Integer value) {
  char digits[20];
  const auto result = std::to_chars(std::begin(digits), std::end(digits), value);
  to.append(digits, static_cast<size_t>(result.ptr - digits));
}

void append_metadata(std::string& to, const Metadata& metadata) {
  append_string(to, kMetadataKey);
  to += ":{";
  for (const auto& [key, value] : metadata.pairs()) {
    if (!is_utf8(key) || !is_utf8(value)) {
      throw SafetensorError("metadata: key " + in_quotes(key) + " or its value is not UTF-8");
    }
    to += to.back() == '{' ? "" : ",";
    append_string(to, key);
    to += ':';
    append_string(to, value);
  }
  to += '}';
}

void append_tensor(std::string& to, const TensorSpec& spec, uint64_t begin, uint64_t end) {
  append_string(to, spec.name);
  to += ":{\"dtype\":\"";
  to += dtype_name(spec.dtype);
  to += "\",\"shape\":[";
  for (size_t i = 0; i < spec.shape.size(); ++i) {
    if (i > 0) {
      to += ',';
    }
    append_number(to, spec.shape[i]);
  }
  to += "],\"data_offsets\":[";
  append_number(to, begin);
  to += ',';
  append_number(to, end);
  to += "]}";
}

uint64_t end_of(const TensorSpec& spec, uint64_t begin) {
  try {
    const auto end = checked_add(begin, tensor_nbytes(spec.dtype, spec.shape));
    if (!end) {
      throw SafetensorError("overflow: the data does not fit in 64 bits");
    }
    return *end;
  } catch (const SafetensorError& error) {
    throw SafetensorError("tensor " + in_quotes(spec.name) + ": " + error.what());
  }
}

void check_name(const TensorSpec& spec) {
  if (spec.name == kMetadataKey) {
    throw SafetensorError("tensor '__metadata__': the format keeps this name for metadata; rename it");
  }
  if (!is_utf8(spec.name)) {
    throw SafetensorError("tensor " + in_quotes(spec.name) + ": its name is not UTF-8");
  }
}

void check_alignment(int64_t alignment) {
  const bool is_valid = alignment == 0 || (alignment >= kMinAlignment && alignment <= kMaxAlignment &&
                                           std::has_single_bit(static_cast<uint64_t>(alignment)));
  if (!is_valid) {
    throw SafetensorError("alignment must be 0 or a power of two from " + std::to_string(kMinAlignment) +
                          " to " + std::to_string(kMaxAlignment) + ", not " + std::to_string(alignment));
  }
}

/// Dtypes downwards, and within each the names upwards.
std::vector<size_t> order_of(std::span<const TensorSpec> specs) {
  std::vector<std::vector<size_t>> of_dtype(kDTypeCount);
  for (size_t i = 0; i < specs.size(); ++i) {
    of_dtype[static_cast<size_t>(specs[i].dtype)].push_back(i);
  }
  std::vector<size_t> order;
  order.reserve(specs.size());
  std::vector<std::string_view> names;
  for (auto indices = of_dtype.rbegin(); indices != of_dtype.rend(); ++indices) {
    names.clear();
    for (const size_t index : *indices) {
      names.push_back(specs[index].name);
    }
    for (const uint32_t place : order_names(names).indices) {
      order.push_back((*indices)[place]);
    }
  }
  return order;
}

/// Sorts by the largest power of two, at most `alignment`, that divides a tensor's size, the highest first,
/// and leaves those of one power as they were. Every tensor then begins at a multiple of its own power, which
/// divides the padded header and the sizes of all that lie before: the format forbids holes, so order has to
/// do it. A tensor without bytes counts as a multiple of `alignment`; it needs none and spoils no other's.
void align(std::vector<size_t>& order, std::span<const TensorSpec> specs, uint64_t alignment) {
  std::vector<int> powers;
  powers.reserve(specs.size());
  for (const TensorSpec& spec : specs) {
    const uint64_t size = end_of(spec, 0);
    powers.push_back(std::countr_zero(size | alignment));
  }
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t index) { return powers[index]; });
}

/// Bytes that the header will have at most, bar escapes: so that it need not grow.
size_t expected_size(std::span<const TensorSpec> specs) {
  constexpr size_t kAroundName = 128;
  constexpr size_t kDimension = 20;
  size_t size = kAroundName;
  for (const TensorSpec& spec : specs) {
    size += spec.name.size() + kAroundName + spec.shape.size() * kDimension;
  }
  return size;
}

/// Length field and padding around the JSON that follows kPrefixSize free bytes.
void finish(std::string& bytes, size_t alignment) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, ' ');
  const uint64_t size = bytes.size() - kPrefixSize;
  if (size > kMaxHeaderSize) {
    throw SafetensorError("header too large: " + std::to_string(size) + " bytes, the limit is " +
                          std::to_string(kMaxHeaderSize));
  }
  for (size_t i = 0; i < kPrefixSize; ++i) {
    bytes[i] = static_cast<char>(size >> (8 * i));
  }
}

}  // namespace

SerializedHeader serialize_header(std::span<const TensorSpec> specs, const Metadata* metadata,
                                  int64_t alignment) {
  check_alignment(alignment);
  SerializedHeader header{"", order_of(specs), 0};
  if (alignment != 0) {
    align(header.order, specs, static_cast<uint64_t>(alignment));
  }
  header.bytes.reserve(expected_size(specs));
  header.bytes.append(kPrefixSize, '\0');
  header.bytes += '{';
  if (metadata != nullptr) {
    append_metadata(header.bytes, *metadata);
  }
  for (const size_t index : header.order) {
    check_name(specs[index]);
    const uint64_t end = end_of(specs[index], header.data_size);
    header.bytes += header.bytes.back() == '{' ? "" : ",";
    append_tensor(header.bytes, specs[index], header.data_size, end);
    header.data_size = end;
  }
  header.bytes += '}';
  finish(header.bytes, static_cast<size_t>(std::max(alignment, kMinAlignment)));
  return header;
}

}  // namespace torch_safetensors::format
