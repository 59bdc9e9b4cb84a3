#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "format/header_json.h"

namespace torch_safetensors::format {

/// Turns the events of a JSON parser, in the order of the text, into a `JsonHeader`: the format's
/// rules about which value may stand where. Every event returns false, with the reason in
/// `error()`, where the header is refused; no event may follow.
class HeaderBuilder {
 public:
  /// `header` is filled, and must outlive the builder. So must the text of keys that are handed in.
  explicit HeaderBuilder(JsonHeader& header) : header_(header) {}

  const std::string& error() const { return error_; }

  bool on_null();
  bool on_bool();
  /// `text` as it stands in the JSON: a converted number has lost the difference of 2, 2.0 and 2e0.
  bool on_number(std::string_view text);
  bool on_string(std::string_view text);
  bool on_key(std::string_view key);
  bool on_object_begin();
  bool on_object_end();
  bool on_array_begin();
  bool on_array_end();

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

  bool fail(std::string error);
  bool fail_in_tensor(const std::string& error);
  bool unexpected(std::string_view found);
  bool scalar(std::string_view found);

  bool enter();
  void end_ignored();
  bool begin_metadata();
  bool begin_tensor(std::string_view name);
  bool begin_field(std::string_view key);
  bool begin_known_field(std::string_view key, Field field, State state);
  bool set_dtype(std::string_view text);
  bool add_dimension(uint64_t value);
  bool add_offset(uint64_t value);
  bool end_tensor();

  JsonHeader& header_;
  State state_ = State::kStart;
  int depth_ = 0;
  bool has_metadata_ = false;
  std::string_view metadata_key_;
  JsonTensor tensor_{};
  unsigned fields_ = 0;
  size_t offsets_ = 0;
  std::string error_;
};

}  // namespace torch_safetensors::format
