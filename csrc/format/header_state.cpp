#include "format/header_state.h"

namespace torch_safetensors::format {

std::string_view expected_at(HeaderState state) {
  switch (state) {
    case HeaderState::kStart:
    case HeaderState::kTensor:
      return "expected an object";
    case HeaderState::kMetadata:
      return "expected an object of strings";
    case HeaderState::kMetadataValue:
      return "expected a string";
    case HeaderState::kDType:
      return "dtype: expected a string";
    case HeaderState::kShapeValue:
      return "shape: expected an array of unsigned integers";
    case HeaderState::kShape:
      return "shape: expected an unsigned integer";
    case HeaderState::kOffsetsValue:
      return "data_offsets: expected an array of two unsigned integers";
    case HeaderState::kOffsets:
      return "data_offsets: expected an unsigned integer";
    default:
      return "unexpected value";
  }
}

}  // namespace torch_safetensors::format
