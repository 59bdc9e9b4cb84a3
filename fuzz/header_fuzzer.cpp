// The JSON of a header: both readers agree, what they accept keeps its promises, and written again means the
// same.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "format/header_json.h"
#include "format/plain_header.h"
#include "header_checks.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::fuzz {
namespace {

std::optional<format::HeaderContent> parse(std::string_view json) {
  try {
    return format::parse_header_json(json);
  } catch (const SafetensorError& error) {
    require(*error.what() != '\0', "errors have a text");
    return std::nullopt;
  }
}

std::optional<format::Header> validate(std::string_view json, uint64_t data_size) {
  try {
    return format::parse_header(json, data_size);
  } catch (const SafetensorError&) {
    return std::nullopt;
  }
}

void check_prefix(std::string_view bytes) {
  for (const uint64_t file_size : {uint64_t{0}, uint64_t{bytes.size()}, uint64_t{1} << 27, ~uint64_t{0}}) {
    try {
      const uint64_t size = format::parse_header_size(bytes, file_size);
      require(size <= format::kMaxHeaderSize && size + format::kPrefixSize <= file_size, "the header fits");
    } catch (const SafetensorError&) {
    }
  }
}

void check(std::string_view json) {
  check_prefix(json);
  const std::optional<format::HeaderContent> plain = format::read_plain_header(json);
  const std::optional<format::HeaderContent> parsed = parse(json);
  if (plain) {
    require(parsed && std::ranges::equal(plain->tensors, parsed->tensors, same_tensor) &&
                plain->metadata == parsed->metadata,
            "both readers read the same");
  }
  const uint64_t data_size = parsed ? data_size_of(*parsed) : 0;
  const std::optional<format::Header> header = validate(json, data_size);
  if (header) {
    require(parsed.has_value(), "a valid header is valid JSON");
    require_valid(*header, data_size);
    require(!validate(json, data_size + 1) && !(data_size > 0 && validate(json, data_size - 1)),
            "data of another size is refused");
    require_round_trip(*header);
  }
}

}  // namespace
}  // namespace torch_safetensors::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  torch_safetensors::fuzz::check({reinterpret_cast<const char*>(data), size});
  return 0;
}
