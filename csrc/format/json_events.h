#pragma once

#include <string>
#include <string_view>

namespace torch_safetensors::format {

/// What a JSON parser finds, in the order of the text. Every event returns false, with the reason in
/// `error()`, where the text is refused; no event may follow.
class JsonEvents {
 public:
  virtual const std::string& error() const = 0;

  virtual bool on_null() = 0;
  virtual bool on_bool() = 0;
  /// `text` as it stands in the JSON: a converted number has lost the difference of 2, 2.0 and 2e0.
  virtual bool on_number(std::string_view text) = 0;
  virtual bool on_string(std::string_view text) = 0;
  virtual bool on_key(std::string_view key) = 0;
  virtual bool on_object_begin() = 0;
  virtual bool on_object_end() = 0;
  virtual bool on_array_begin() = 0;
  virtual bool on_array_end() = 0;

 protected:
  ~JsonEvents() = default;
};

}  // namespace torch_safetensors::format
