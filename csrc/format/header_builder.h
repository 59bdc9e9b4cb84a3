#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "format/header_content.h"
#include "format/header_state.h"
#include "format/json_events.h"
#include "format/tensor_builder.h"

namespace torch_safetensors::format {

/// Turns the events of a JSON parser, in the order of the text, into a `HeaderContent`: the format's
/// rules about which value may stand where.
class HeaderBuilder final : public JsonEvents {
 public:
  /// `header` is filled, and must outlive the builder. So must the text of keys that are handed in.
  explicit HeaderBuilder(HeaderContent& header) : header_(header) {}
  HeaderBuilder(const HeaderBuilder&) = delete;
  HeaderBuilder& operator=(const HeaderBuilder&) = delete;

  const std::string& error() const override { return error_; }

  bool on_null() override;
  bool on_bool() override;
  bool on_number(std::string_view text) override;
  bool on_string(std::string_view text) override;
  bool on_key(std::string_view key) override;
  bool on_object_begin() override;
  bool on_object_end() override;
  bool on_array_begin() override;
  bool on_array_end() override;

 private:
  using State = HeaderState;

  bool fail(std::string error);
  bool unexpected(std::string_view found);
  bool scalar(std::string_view found);

  void end_ignored();
  bool begin_metadata();
  bool begin_field(std::string_view key);

  HeaderContent& header_;
  State state_ = State::kStart;
  int depth_ = 0;
  bool has_metadata_ = false;
  std::string_view metadata_key_;
  MetadataBuilder metadata_;
  std::string error_;
  TensorBuilder tensor_{header_, error_};
};

}  // namespace torch_safetensors::format
