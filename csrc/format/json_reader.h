#pragma once

#include <string_view>

#include "format/json_events.h"

namespace torch_safetensors::format {

/// Reads one JSON value, which may nest to 127 levels as in the reference. Strings are valid Unicode, and
/// live as long as the call. Throws SafetensorError with the place and the reason; `what` names the text
/// there, e.g. "header".
void read_json(std::string_view json, std::string_view what, JsonEvents& events);

}  // namespace torch_safetensors::format
