#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace torch_safetensors::format {

/// The value of `text` if it is an exact unsigned integer; -0, 2.0 and 2e0 are none to the format.
std::optional<uint64_t> to_uint64(std::string_view text);

/// What the number `text`, of which `to_uint64` knows no value, is instead; for error messages.
std::string_view kind_of_number(std::string_view text);

/// True if the number `text`, rounded to a double, is finite. The reference reads the numbers that it ignores
/// too, and refuses the others. Linear, exact, and the same in every locale.
bool fits_double(std::string_view text);

}  // namespace torch_safetensors::format
