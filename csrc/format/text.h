#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "format/dtype.h"

namespace torch_safetensors::format {

/// `text` in single quotes for an error message: control characters and bytes that are not UTF-8
/// escaped as \xNN, and a long text shortened in the middle (at most about 200 bytes).
std::string in_quotes(std::string_view text);

/// As `in_quotes`, without quotes and whole: how a path stands in front of a message.
std::string printable(std::string_view text);

/// Bytes of the longest prefix of `text` that is UTF-8 without surrogates and overlong forms.
size_t utf8_prefix(std::string_view text);

/// True if all of `text` is.
inline bool is_utf8(std::string_view text) { return utf8_prefix(text) == text.size(); }

/// True if a surrogate is encoded in `text`, which is UTF-8 otherwise.
bool has_surrogate(std::string_view text);

/// The first eight bytes of `text`, the first one highest, 0 for those that it lacks: of two texts the one
/// with the smaller number sorts before the other.
uint64_t sortable_prefix(std::string_view text);

/// `F32[2,2]`, to be compared: all that the header says of a tensor but where it lies.
std::string signature(DType dtype, std::span<const int64_t> shape);

/// `F32 [2, 2]`, for error messages; of more than 16 dimensions the first ones and their number.
std::string describe(DType dtype, std::span<const int64_t> shape);

}  // namespace torch_safetensors::format
