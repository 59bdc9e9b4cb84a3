#include "format/serialize.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "format/checked.h"
#include "format/tensor_size.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

/// The JSON is padded so that the data begins at a multiple of this.
constexpr size_t kAlignment = 8;

/// As serde_json writes strings, which is what makes files the reference's to the byte: the short escapes,
/// lower-case
/// \u00xx for other control characters, everything else as it is.
void append_string(std::string& to, std::string_view text) {
  constexpr std::string_view kShort = "\b\t\n\f\r\"\\";
  constexpr std::string_view kLetters = "btnfr\"\\";
  constexpr char kDigits[] = "0123456789abcdef";
  to += '"';
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\') {
      to += c;
    } else if (const size_t found = kShort.find(c); found != kShort.npos) {
      to += '\\';
      to += kLetters[found];
    } else {
      to += "\\u00";
      to += kDigits[c >> 4];
      to += kDigits[c & 15];
    }
  }
  to += '"';
}

void append_metadata(std::string& to, const Metadata& metadata) {
  append_string(to, kMetadataKey);
  to += ":{";
  for (auto item = metadata.begin(); item != metadata.end(); ++item) {
    if (!is_utf8(item->first) || !is_utf8(item->second)) {
      throw SafetensorError("metadata: key " + in_quotes(item->first) + " or its value is not UTF-8");
    }
    to += item == metadata.begin() ? "" : ",";
    append_string(to, item->first);
    to += ':';
    append_string(to, item->second);
  }
  to += '}';
}

void append_tensor(std::string& to, const TensorSpec& spec, uint64_t begin, uint64_t end) {
  append_string(to, spec.name);
  to += ":{\"dtype\":\"";
  to += dtype_name(spec.dtype);
  to += "\",\"shape\":[";
  for (size_t i = 0; i < spec.shape.size(); ++i) {
    to += i == 0 ? "" : ",";
    to += std::to_string(spec.shape[i]);
  }
  to += "],\"data_offsets\":[" + std::to_string(begin) + ',' + std::to_string(end) + "]}";
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

std::vector<size_t> order_of(std::span<const TensorSpec> specs) {
  std::vector<size_t> order(specs.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::tie(specs[b].dtype, specs[a].name) < std::tie(specs[a].dtype, specs[b].name);
  });
  return order;
}

/// Length field and padding around the JSON that follows kPrefixSize free bytes.
void finish(std::string& bytes) {
  bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
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

SerializedHeader serialize_header(std::span<const TensorSpec> specs, const Metadata* metadata) {
  SerializedHeader header{std::string(kPrefixSize, '\0') + '{', order_of(specs), 0};
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
  finish(header.bytes);
  return header;
}

}  // namespace torch_safetensors::format
