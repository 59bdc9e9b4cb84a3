#pragma once

#include <optional>
#include <string>

namespace torch_safetensors::shared {

/// The path that an operator's `filename` stands for. Operators carry UTF-8 only, so the Python package
/// passes a name that is not UTF-8 as a NUL, which no path can hold, followed by its bytes in hexadecimal.
/// Nothing for any other name with a NUL in it.
std::optional<std::string> decode_filename(const std::string& filename);

/// A path, as an operator takes it, that `decode_filename` gives back; in the second form, which fits any.
std::string encode_filename(const std::string& path);

}  // namespace torch_safetensors::shared
