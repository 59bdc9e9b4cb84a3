#pragma once

#include <string>
#include <string_view>

#include "torch_safetensors/errors.h"

namespace torch_safetensors::io {

/// Throws OsError for `error_number`, with the system's own text for it.
[[noreturn]] void throw_os_error(int error_number, const std::string& path);

/// The same with a text of ours, for what errno's text does not explain.
[[noreturn]] void throw_os_error(int error_number, std::string_view text, const std::string& path);

}  // namespace torch_safetensors::io
