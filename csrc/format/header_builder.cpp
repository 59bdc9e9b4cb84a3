#include "format/header_builder.h"

#include <charconv>
#include <locale>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>

#include "format/text.h"

namespace torch_safetensors::format {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

/// Objects and arrays within each other, the outermost included. The reference's limit.
constexpr int kMaxDepth = 127;

/// The depth inside a tensor's object.
constexpr int kTensorDepth = 2;

std::string_view kind_of_number(std::string_view text) {
  if (text.find_first_of(".eE") != text.npos) {
    return "a number that is not an integer";
  }
  return text.front() == '-' ? "a negative number" : "a number over 18446744073709551615";
}

/// The value of an exact unsigned integer; -0, 2.0 and 2e0 are none to the format.
std::optional<uint64_t> to_uint64(std::string_view text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end ? std::optional(value) : std::nullopt;
}

/// The reference reads the numbers that it ignores too, as doubles, and refuses what none can hold.
bool fits_double(std::string_view text) {
  // A double has 308 digits: nothing of 200 with an exponent of two comes near.
  constexpr size_t kFewDigits = 200;
  const size_t exponent = text.find_first_of("eE");
  if (text.size() <= kFewDigits && (exponent == text.npos || text.size() - exponent <= 3)) {
    return true;
  }
  // Not strtod: whether it takes the point for one depends on the program's locale.
  std::istringstream stream{std::string(text)};
  stream.imbue(std::locale::classic());
  double value = 0;
  return (stream >> value) || (value > -1 && value < 1);  // an underflow is no error
}

/// RapidJSON lets the escape of a lone low surrogate through and encodes it as if it were a
/// character. In text that was UTF-8 before, nothing else can put such bytes there.
bool has_surrogate(std::string_view text) {
  for (size_t at = text.find('\xED'); at != text.npos; at = text.find('\xED', at + 1)) {
    if (at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) >= 0xA0) {
      return true;
    }
  }
  return false;
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
    return state_ == State::kShape ? add_dimension(*value) : add_offset(*value);
  }
  if (state_ == State::kIgnored && !fits_double(text)) {
    return fail("number out of range: " + in_quotes(text));
  }
  return scalar("a number");
}

bool HeaderBuilder::on_string(std::string_view text) {
  if (has_surrogate(text)) {
    return fail("lone surrogate in a string");
  }
  if (state_ == State::kDType) {
    return set_dtype(text);
  }
  if (state_ == State::kMetadataValue) {
    header_.metadata->insert_or_assign(std::string(metadata_key_), text);
    state_ = State::kMetadataObject;
    return true;
  }
  return scalar("a string");
}

bool HeaderBuilder::on_key(std::string_view key) {
  if (has_surrogate(key)) {
    return fail("lone surrogate in a string");
  }
  switch (state_) {
    case State::kTop:
      return key == kMetadataKey ? begin_metadata() : begin_tensor(key);
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
  if (!enter()) {
    return false;
  }
  switch (state_) {
    case State::kStart:
      state_ = State::kTop;
      return true;
    case State::kMetadata:
      header_.metadata.emplace();
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
      state_ = State::kTop;
      return true;
    case State::kTensorObject:
      return end_tensor();
    case State::kIgnored:
      end_ignored();
      return true;
    default:
      return true;  // The outermost one.
  }
}

bool HeaderBuilder::on_array_begin() {
  if (!enter()) {
    return false;
  }
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
  if (state_ == State::kOffsets && offsets_ != 2) {
    return fail_in_tensor("data_offsets: expected 2 numbers, found " + std::to_string(offsets_));
  }
  state_ = State::kTensorObject;
  return true;
}

bool HeaderBuilder::fail(std::string error) {
  error_ = std::move(error);
  return false;
}

bool HeaderBuilder::fail_in_tensor(const std::string& error) {
  const std::string_view name(header_.names.data() + tensor_.name_begin, tensor_.name_size);
  return fail("tensor " + in_quotes(name) + ": " + error);
}

/// Where a value of another kind is expected.
bool HeaderBuilder::unexpected(std::string_view kind) {
  const std::string found = ", found " + std::string(kind);
  switch (state_) {
    case State::kStart:
      return fail("expected an object" + found);
    case State::kMetadata:
      return fail("__metadata__: expected an object of strings" + found);
    case State::kMetadataValue:
      return fail("__metadata__: key " + in_quotes(metadata_key_) + ": expected a string" + found);
    case State::kTensor:
      return fail_in_tensor("expected an object" + found);
    case State::kDType:
      return fail_in_tensor("dtype: expected a string" + found);
    case State::kShapeValue:
      return fail_in_tensor("shape: expected an array of unsigned integers" + found);
    case State::kShape:
      return fail_in_tensor("shape: expected an unsigned integer" + found);
    case State::kOffsetsValue:
      return fail_in_tensor("data_offsets: expected an array of two unsigned integers" + found);
    case State::kOffsets:
      return fail_in_tensor("data_offsets: expected an unsigned integer" + found);
    default:
      return fail("unexpected value" + found);
  }
}

bool HeaderBuilder::scalar(std::string_view found) {
  if (state_ != State::kIgnored) {
    return unexpected(found);
  }
  end_ignored();
  return true;
}

bool HeaderBuilder::enter() {
  return ++depth_ <= kMaxDepth ||
         fail("recursion limit exceeded: more than " + std::to_string(kMaxDepth) + " levels");
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

bool HeaderBuilder::begin_tensor(std::string_view name) {
  tensor_ = {};
  tensor_.name_begin = header_.names.size();
  tensor_.name_size = name.size();
  tensor_.dims_begin = header_.dims.size();
  header_.names.insert(header_.names.end(), name.begin(), name.end());
  fields_ = 0;
  offsets_ = 0;
  state_ = State::kTensor;
  return true;
}

bool HeaderBuilder::begin_field(std::string_view key) {
  if (key == "dtype") {
    return begin_known_field(key, kHasDType, State::kDType);
  }
  if (key == "shape") {
    return begin_known_field(key, kHasShape, State::kShapeValue);
  }
  if (key == "data_offsets") {
    return begin_known_field(key, kHasOffsets, State::kOffsetsValue);
  }
  state_ = State::kIgnored;
  return true;
}

bool HeaderBuilder::begin_known_field(std::string_view key, Field field, State state) {
  if ((fields_ & field) != 0) {
    return fail_in_tensor("duplicate field `" + std::string(key) + "`");
  }
  fields_ |= field;
  state_ = state;
  return true;
}

bool HeaderBuilder::set_dtype(std::string_view text) {
  const auto dtype = find_dtype(text);
  if (!dtype) {
    return fail_in_tensor(unknown_dtype(text));
  }
  tensor_.dtype = *dtype;
  state_ = State::kTensorObject;
  return true;
}

bool HeaderBuilder::add_dimension(uint64_t value) {
  if (value > INT64_MAX) {
    return fail_in_tensor("shape: " + std::to_string(value) + " is over the largest dimension, " +
                          std::to_string(INT64_MAX));
  }
  header_.dims.push_back(static_cast<int64_t>(value));
  ++tensor_.dims_size;
  return true;
}

bool HeaderBuilder::add_offset(uint64_t value) {
  if (++offsets_ <= 2) {
    (offsets_ == 1 ? tensor_.begin : tensor_.end) = value;
  }
  return true;
}

bool HeaderBuilder::end_tensor() {
  for (const auto& [field, key] : {std::pair(kHasDType, "dtype"), std::pair(kHasShape, "shape"),
                                   std::pair(kHasOffsets, "data_offsets")}) {
    if ((fields_ & field) == 0) {
      return fail_in_tensor("missing field `" + std::string(key) + "`");
    }
  }
  header_.tensors.push_back(tensor_);
  state_ = State::kTop;
  return true;
}

}  // namespace torch_safetensors::format
