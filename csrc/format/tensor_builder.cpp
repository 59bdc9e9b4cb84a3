#include "format/tensor_builder.h"

#include "format/text.h"

namespace torch_safetensors::format {
namespace {

constexpr TensorBuilder::Field kFields[] = {TensorBuilder::Field::kDType, TensorBuilder::Field::kShape,
                                            TensorBuilder::Field::kOffsets};

std::string in_backticks(TensorBuilder::Field field) {
  switch (field) {
    case TensorBuilder::Field::kDType:
      return "`dtype`";
    case TensorBuilder::Field::kShape:
      return "`shape`";
    default:
      return "`data_offsets`";
  }
}

std::string unknown_dtype(std::string_view name) {
  std::string text = "unknown dtype " + in_quotes(name) + ", expected one of ";
  for (size_t i = 0; i < kDTypeCount; ++i) {
    text += i == 0 ? "" : ", ";
    text += dtype_name(static_cast<DType>(i));
  }
  return text;
}

}  // namespace

void TensorBuilder::begin(std::string_view name) {
  tensor_ = {};
  tensor_.name = header_.add_name(name);
  tensor_.shape = {header_.dims.end(), 0};
  fields_ = 0;
  offsets_ = 0;
}

bool TensorBuilder::begin_field(Field field) {
  const auto bit = static_cast<unsigned>(field);
  if ((fields_ & bit) != 0) {
    return fail("duplicate field " + in_backticks(field));
  }
  fields_ |= bit;
  return true;
}

bool TensorBuilder::set_dtype(std::string_view text) {
  const auto dtype = find_dtype(text);
  if (!dtype) {
    return fail(unknown_dtype(text));
  }
  tensor_.dtype = *dtype;
  return true;
}

bool TensorBuilder::add_dimension(uint64_t value) {
  if (value > INT64_MAX) {
    return fail("shape: " + std::to_string(value) + " is over the largest dimension, " +
                std::to_string(INT64_MAX));
  }
  header_.dims.push_back(static_cast<int64_t>(value));
  tensor_.shape = {tensor_.shape.data(), tensor_.shape.size() + 1};
  return true;
}

void TensorBuilder::add_offset(uint64_t value) {
  if (++offsets_ <= 2) {
    (offsets_ == 1 ? tensor_.begin : tensor_.end) = value;
  }
}

bool TensorBuilder::end_offsets() {
  return offsets_ == 2 || fail("data_offsets: expected 2 numbers, found " + std::to_string(offsets_));
}

bool TensorBuilder::end() {
  for (const Field field : kFields) {
    if ((fields_ & static_cast<unsigned>(field)) == 0) {
      return fail("missing field " + in_backticks(field));
    }
  }
  header_.tensors.push_back(tensor_);
  return true;
}

bool TensorBuilder::fail(const std::string& error) {
  error_ = "tensor " + in_quotes(tensor_.name) + ": " + error;
  return false;
}

}  // namespace torch_safetensors::format
