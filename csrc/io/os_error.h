#pragma once

#include <string>
#include <string_view>

#include "torch_safetensors/errors.h"

namespace torch_safetensors::io {

/// Throws OsError for `error_number`, with the system's own text for it.
[[noreturn]] void throw_os_error(int error_number, const std::string& path);

/// The same with a text of ours, for what errno's text does not explain.
[[noreturn]] void throw_os_error(int error_number, std::string_view text, const std::string& path);

/// The system's own text for `error_number`, e.g. `No such file or directory`.
std::string os_error_text(int error_number);

/// A path in single quotes as Python writes it, but for bytes that are not UTF-8 and control characters,
/// which become \xNN. It is always valid UTF-8.
std::string quoted_path(std::string_view path);

}  // namespace torch_safetensors::io
