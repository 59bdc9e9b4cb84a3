#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace torch_safetensors::tensors {

/// Names in the form that becomes a list of Python strings the fastest: with a separator, the only element is
/// all of them, to be split there. Without one, they are the elements (there are few, or no character is
/// free).
using JoinedNames = std::tuple<std::vector<std::string>, std::optional<std::string>>;

JoinedNames join_names(const std::vector<std::string_view>& names);

}  // namespace torch_safetensors::tensors
