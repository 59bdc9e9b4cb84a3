#pragma once

#include <string_view>

namespace torch_safetensors::format {

/// Where in a header a parser is.
enum class HeaderState {
  kStart,           // before the outermost object
  kTop,             // in it
  kMetadata,        // at the value of __metadata__
  kMetadataObject,  // in it
  kMetadataValue,   // at one of its values
  kTensor,          // at the value of a tensor
  kTensorObject,    // in it
  kDType,           // at the values of its fields
  kShapeValue,
  kShape,  // in the array
  kOffsetsValue,
  kOffsets,
  kIgnored,  // at or in a field that the format does not know
};

/// What value must stand there, for error messages. There are none between the members of an object.
std::string_view expected_at(HeaderState state);

}  // namespace torch_safetensors::format
