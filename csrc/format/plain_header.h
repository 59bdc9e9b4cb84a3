#pragma once

#include <optional>
#include <string_view>

#include "format/header_content.h"

namespace torch_safetensors::format {

/// Reads the JSON of a header in the form that writers give it: no escapes, no fields that the format does
/// not know, any whitespace. Nothing for a header of another form, valid or not, which is
/// `parse_header_json`'s to judge. What this returns is what that function returns, several times faster.
std::optional<HeaderContent> read_plain_header(std::string_view json);

}  // namespace torch_safetensors::format
