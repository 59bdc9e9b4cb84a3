#include "format/header_builder.h"

#include <utility>

#include "format/json_number.h"
#include "format/text.h"

namespace torch_safetensors::format {
namespace {

/// The depth inside a tensor's object.
constexpr int kTensorDepth = 2;

}  // namespace

bool HeaderBuilder::on_null() {
  if (state_ == State::kMetadata) {
    state_ = State::kTop;
    return true;
  }
  return scalar("null");
}

bool HeaderBuilder::on_bool() { return scalar("a boolean"); }

bool HeaderBuilder::on_number(std::string_view text) {
  if (state_ == State::kShape || state_ == State::kOffsets) {
    const auto value = to_uint64(text);
    if (!value) {
      return unexpected(kind_of_number(text));
    }
    if (state_ == State::kShape) {
      return tensor_.add_dimension(*value);
    }
    tensor_.add_offset(*value);
    return true;
  }
  if (state_ == State::kIgnored && !fits_double(text)) {
    return fail("number out of range: " + in_quotes(text));
  }
  return scalar("a number");
}

bool HeaderBuilder::on_string(std::string_view text) {
  if (state_ == State::kDType) {
    state_ = State::kTensorObject;
    return tensor_.set_dtype(text);
  }
  if (state_ == State::kMetadataValue) {
    metadata_.add(metadata_key_, text);
    state_ = State::kMetadataObject;
    return true;
  }
  return scalar("a string");
}

bool HeaderBuilder::on_key(std::string_view key) {
  switch (state_) {
    case State::kTop:
      if (key == kMetadataKey) {
        return begin_metadata();
      }
      tensor_.begin(key);
      state_ = State::kTensor;
      return true;
    case State::kMetadataObject:
      metadata_key_ = key;
      state_ = State::kMetadataValue;
      return true;
    case State::kTensorObject:
      return begin_field(key);
    default:
      return true;
  }
}

bool HeaderBuilder::on_object_begin() {
  ++depth_;
  switch (state_) {
    case State::kStart:
      state_ = State::kTop;
      return true;
    case State::kMetadata:
      state_ = State::kMetadataObject;
      return true;
    case State::kTensor:
      state_ = State::kTensorObject;
      return true;
    case State::kIgnored:
      return true;
    default:
      return unexpected("an object");
  }
}

bool HeaderBuilder::on_object_end() {
  --depth_;
  switch (state_) {
    case State::kMetadataObject:
      header_.metadata = std::move(metadata_).build();
      state_ = State::kTop;
      return true;
    case State::kTensorObject:
      state_ = State::kTop;
      return tensor_.end();
    case State::kIgnored:
      end_ignored();
      return true;
    default:
      return true;  // The outermost one.
  }
}

bool HeaderBuilder::on_array_begin() {
  ++depth_;
  switch (state_) {
    case State::kShapeValue:
      state_ = State::kShape;
      return true;
    case State::kOffsetsValue:
      state_ = State::kOffsets;
      return true;
    case State::kIgnored:
      return true;
    default:
      return unexpected("an array");
  }
}

bool HeaderBuilder::on_array_end() {
  --depth_;
  if (state_ == State::kIgnored) {
    end_ignored();
    return true;
  }
  return std::exchange(state_, State::kTensorObject) != State::kOffsets || tensor_.end_offsets();
}

bool HeaderBuilder::fail(std::string error) {
  error_ = std::move(error);
  return false;
}

/// Where a value of another kind is expected.
bool HeaderBuilder::unexpected(std::string_view kind) {
  const std::string error = std::string(expected_at(state_)) + ", found " + std::string(kind);
  switch (state_) {
    case State::kMetadata:
      return fail("__metadata__: " + error);
    case State::kMetadataValue:
      return fail("__metadata__: key " + in_quotes(metadata_key_) + ": " + error);
    case State::kStart:
      return fail(error);
    default:
      return tensor_.fail(error);
  }
}

bool HeaderBuilder::scalar(std::string_view found) {
  if (state_ != State::kIgnored) {
    return unexpected(found);
  }
  end_ignored();
  return true;
}

/// Back to the tensor once the unknown field's value is complete.
void HeaderBuilder::end_ignored() {
  if (depth_ == kTensorDepth) {
    state_ = State::kTensorObject;
  }
}

bool HeaderBuilder::begin_metadata() {
  if (std::exchange(has_metadata_, true)) {
    return fail("duplicate field `__metadata__`");
  }
  state_ = State::kMetadata;
  return true;
}

bool HeaderBuilder::begin_field(std::string_view key) {
  using Field = TensorBuilder::Field;
  if (key == "dtype") {
    state_ = State::kDType;
    return tensor_.begin_field(Field::kDType);
  }
  if (key == "shape") {
    state_ = State::kShapeValue;
    return tensor_.begin_field(Field::kShape);
  }
  if (key == "data_offsets") {
    state_ = State::kOffsetsValue;
    return tensor_.begin_field(Field::kOffsets);
  }
  state_ = State::kIgnored;
  return true;
}

}  // namespace torch_safetensors::format
