#pragma once

#include <string_view>

#include "format/header_content.h"

namespace torch_safetensors::format {

/// Parses the JSON of a header. Throws SafetensorError with the place and the reason.
HeaderContent parse_header_json(std::string_view json);

}  // namespace torch_safetensors::format
