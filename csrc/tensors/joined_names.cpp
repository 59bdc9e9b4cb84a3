#include "tensors/joined_names.h"

#include <algorithm>

namespace torch_safetensors::tensors {
namespace {

/// Of so many a list converts as fast.
constexpr size_t kFew = 16;

/// Control characters, which names hardly have: nothing, if all of them are in use.
std::optional<char> find_separator(const std::vector<std::string_view>& names) {
  for (const char separator : std::string_view("\n\0\x1e\x1f\x1d\x1c", 6)) {
    if (std::none_of(names.begin(), names.end(),
                     [&](auto name) { return name.find(separator) != name.npos; })) {
      return separator;
    }
  }
  return std::nullopt;
}

}  // namespace

JoinedNames join_names(const std::vector<std::string_view>& names) {
  const std::optional<char> separator = names.size() <= kFew ? std::nullopt : find_separator(names);
  if (!separator) {
    return {{names.begin(), names.end()}, std::nullopt};
  }
  size_t size = names.size() - 1;
  for (const std::string_view name : names) {
    size += name.size();
  }
  std::string text;
  text.reserve(size);
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) {
      text += *separator;
    }
    text += names[i];
  }
  return {{std::move(text)}, std::string(1, *separator)};
}

}  // namespace torch_safetensors::tensors
