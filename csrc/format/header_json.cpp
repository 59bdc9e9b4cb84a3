#include "format/header_json.h"

#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <utility>

#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

/// Objects and arrays within each other, the outermost included. The reference's limit.
constexpr int kMaxDepth = 127;

/// Receives the events of RapidJSON's parser. Returns false, with the reason in `error`, to stop it.
class Handler {
 public:
  explicit Handler(JsonHeader& header) : header_(header) {}

  const std::string& error() const { return error_; }

  bool Null() {
    if (state_ == State::kMetadata) {
      state_ = State::kTop;
      return true;
    }
    return scalar("null");
  }
  bool Bool(bool) { return scalar("a boolean"); }
  bool Double(double) { return scalar("a number that is not an unsigned integer"); }
  // RapidJSON calls these for integers with a minus sign alone, -0 included.
  bool Int(int) { return scalar("a negative number"); }
  bool Int64(int64_t) { return scalar("a negative number"); }
  bool Uint(unsigned value) { return Uint64(value); }
  bool RawNumber(const char*, rapidjson::SizeType, bool) { return scalar("a number"); }

  bool Uint64(uint64_t value) {
    if (state_ == State::kShape) {
      return add_dimension(value);
    }
    if (state_ == State::kOffsets) {
      return add_offset(value);
    }
    return scalar("a number");
  }

  bool String(const char* data, rapidjson::SizeType size, bool) {
    const std::string_view text(data, size);
    if (has_surrogate(text)) {
      return fail("lone surrogate in a string");
    }
    if (state_ == State::kDType) {
      return set_dtype(text);
    }
    if (state_ == State::kMetadataValue) {
      (*header_.metadata)[metadata_key_] = text;
      state_ = State::kMetadataObject;
      return true;
    }
    return scalar("a string");
  }

  bool Key(const char* data, rapidjson::SizeType size, bool) {
    const std::string_view key(data, size);
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

  bool StartObject() { return enter() && start_object(); }
  bool EndObject(rapidjson::SizeType) { return leave() && end_object(); }
  bool StartArray() { return enter() && start_array(); }
  bool EndArray(rapidjson::SizeType) { return leave() && end_array(); }

 private:
  enum class State {
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

  enum Field : unsigned { kHasDType = 1, kHasShape = 2, kHasOffsets = 4 };

  bool fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  bool fail_in_tensor(const std::string& error) {
    return fail("tensor " + quoted(name()) + ": " + error);
  }

  std::string_view name() const {
    return {header_.names.data() + tensor_.name_begin, tensor_.name_size};
  }

  /// RapidJSON 1.1.0 lets the escape of a lone low surrogate through, and writes it as if it were a character.
  static bool has_surrogate(std::string_view text) {
    for (size_t at = text.find('\xED'); at != text.npos; at = text.find('\xED', at + 1)) {
      if (at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) >= 0xA0) {
        return true;
      }
    }
    return false;
  }

  bool enter() {
    return ++depth_ <= kMaxDepth ||
           fail("recursion limit exceeded: more than " + std::to_string(kMaxDepth) + " levels");
  }

  bool leave() {
    --depth_;
    return true;
  }

  /// Where a value of another kind is expected.
  bool unexpected(const std::string& found) {
    switch (state_) {
      case State::kStart:
        return fail("expected an object, found " + found);
      case State::kMetadata:
        return fail("__metadata__: expected an object of strings, found " + found);
      case State::kMetadataValue:
        return fail("__metadata__: key " + quoted(metadata_key_) + ": expected a string, found " + found);
      case State::kTensor:
        return fail_in_tensor("expected an object, found " + found);
      case State::kDType:
        return fail_in_tensor("dtype: expected a string, found " + found);
      case State::kShapeValue:
        return fail_in_tensor("shape: expected an array of unsigned integers, found " + found);
      case State::kShape:
        return fail_in_tensor("shape: expected an unsigned integer, found " + found);
      case State::kOffsetsValue:
        return fail_in_tensor("data_offsets: expected an array of two unsigned integers, found " + found);
      case State::kOffsets:
        return fail_in_tensor("data_offsets: expected an unsigned integer, found " + found);
      default:
        return fail("unexpected " + found);
    }
  }

  bool scalar(const std::string& found) {
    if (state_ != State::kIgnored) {
      return unexpected(found);
    }
    end_ignored();
    return true;
  }

  /// Back to the tensor once the unknown field's value is complete.
  void end_ignored() {
    if (depth_ == kTensorDepth) {
      state_ = State::kTensorObject;
    }
  }

  bool start_object() {
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

  bool end_object() {
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

  bool start_array() {
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

  bool end_array() {
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

  bool begin_metadata() {
    if (std::exchange(has_metadata_, true)) {
      return fail("duplicate field `__metadata__`");
    }
    state_ = State::kMetadata;
    return true;
  }

  bool begin_tensor(std::string_view name) {
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

  bool begin_field(std::string_view key) {
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

  bool begin_known_field(std::string_view key, Field field, State state) {
    if ((fields_ & field) != 0) {
      return fail_in_tensor("duplicate field `" + std::string(key) + "`");
    }
    fields_ |= field;
    state_ = state;
    return true;
  }

  bool set_dtype(std::string_view text) {
    const auto dtype = find_dtype(text);
    if (!dtype) {
      std::string names;
      for (size_t i = 0; i < kDTypeCount; ++i) {
        names += (i == 0 ? "" : ", ") + std::string(dtype_name(static_cast<DType>(i)));
      }
      return fail_in_tensor("unknown dtype " + quoted(text) + ", expected one of " + names);
    }
    tensor_.dtype = *dtype;
    state_ = State::kTensorObject;
    return true;
  }

  bool add_dimension(uint64_t value) {
    if (value > INT64_MAX) {
      return fail_in_tensor("shape: " + std::to_string(value) + " is over the largest dimension, " +
                            std::to_string(INT64_MAX));
    }
    header_.dims.push_back(static_cast<int64_t>(value));
    ++tensor_.dims_size;
    return true;
  }

  bool add_offset(uint64_t value) {
    if (++offsets_ <= 2) {
      (offsets_ == 1 ? tensor_.begin : tensor_.end) = value;
    }
    return true;
  }

  bool end_tensor() {
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

  /// Depth inside a tensor's object.
  static constexpr int kTensorDepth = 2;

  JsonHeader& header_;
  State state_ = State::kStart;
  int depth_ = 0;
  bool has_metadata_ = false;
  std::string metadata_key_;
  JsonTensor tensor_{};
  unsigned fields_ = 0;
  size_t offsets_ = 0;
  std::string error_;
};

[[noreturn]] void throw_invalid(size_t offset, const std::string& reason) {
  throw SafetensorError("invalid JSON in header at byte " + std::to_string(offset) + ": " + reason);
}

std::string reason_of(const rapidjson::ParseResult& result) {
  switch (result.Code()) {
    case rapidjson::kParseErrorDocumentRootNotSingular:
      return "trailing characters after the object";
    case rapidjson::kParseErrorDocumentEmpty:
      return "the header is empty";
    default: {
      // RapidJSON's sentences begin upper-case and end in a full stop.
      std::string text = rapidjson::GetParseError_En(result.Code());
      text.front() = static_cast<char>(text.front() | 0x20);
      text.pop_back();
      return text;
    }
  }
}

}  // namespace

JsonHeader parse_header_json(std::string_view json) {
  JsonHeader header;
  Handler handler(header);
  rapidjson::MemoryStream stream(json.data(), json.size());
  rapidjson::Reader reader;
  // Iterative: the recursive parser would overflow the stack on `[[[[...`.
  const rapidjson::ParseResult result =
      reader.Parse<rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag>(stream, handler);
  if (result.IsError()) {
    if (result.Code() == rapidjson::kParseErrorTermination) {
      throw_invalid(result.Offset(), handler.error());
    }
    if (!is_utf8(json)) {
      throw SafetensorError("invalid UTF-8 in header");
    }
    throw_invalid(result.Offset(), reason_of(result));
  }
  // To the parser, a NUL byte looks like the end of the input.
  if (stream.Tell() != json.size()) {
    throw_invalid(stream.Tell(), "trailing characters after the object");
  }
  return header;
}

}  // namespace torch_safetensors::format
