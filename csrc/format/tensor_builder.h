#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "format/header_content.h"

namespace torch_safetensors::format {

/// Takes the fields of one tensor after the other into a `HeaderContent`: the format's rules about what their
/// values may be, and that each is there once. Every function returns false, with the reason in `error`,
/// where the header is refused.
class TensorBuilder {
 public:
  enum class Field : unsigned { kDType = 1, kShape = 2, kOffsets = 4 };

  /// `header` gets the tensors, `error` the reason; both must outlive the builder.
  TensorBuilder(HeaderContent& header, std::string& error) : header_(header), error_(error) {}

  void begin(std::string_view name);
  bool begin_field(Field field);
  bool set_dtype(std::string_view text);
  bool add_dimension(uint64_t value);
  void add_offset(uint64_t value);
  bool end_offsets();
  bool end();

  /// Puts the tensor's name in front of `error`. Returns false.
  bool fail(const std::string& error);

 private:
  HeaderContent& header_;
  std::string& error_;
  TensorEntry tensor_{};
  unsigned fields_ = 0;
  size_t offsets_ = 0;
};

}  // namespace torch_safetensors::format
