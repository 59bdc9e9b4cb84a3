#include "format/header_json.h"

#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <string>

#include "format/header_builder.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

/// Iterative: the recursive parser would overflow the stack on `[[[[...`.
///
/// Numbers as strings: RapidJSON 1.1.0 reads beyond a table of powers of ten, far enough to crash,
/// when it converts 0.0000000001e-2147483639.
///
/// In place, in a copy of ours: strings are handed out where they stand, which is twice as fast.
///
/// RapidJSON's SSE2 code stays off: in 1.1.0 it lets the control characters from 0x1A on through.
constexpr unsigned kFlags =
    rapidjson::kParseIterativeFlag | rapidjson::kParseNumbersAsStringsFlag | rapidjson::kParseInsituFlag;

/// RapidJSON's events, handed on.
class Handler {
 public:
  using Size = rapidjson::SizeType;

  explicit Handler(HeaderBuilder& builder) : builder_(builder) {}

  bool Null() { return builder_.on_null(); }
  bool Bool(bool) { return builder_.on_bool(); }
  bool RawNumber(const char* text, Size size, bool) { return builder_.on_number({text, size}); }
  bool String(const char* text, Size size, bool) { return builder_.on_string({text, size}); }
  bool Key(const char* text, Size size, bool) { return builder_.on_key({text, size}); }
  bool StartObject() { return builder_.on_object_begin(); }
  bool EndObject(Size) { return builder_.on_object_end(); }
  bool StartArray() { return builder_.on_array_begin(); }
  bool EndArray(Size) { return builder_.on_array_end(); }

  // Required by RapidJSON, and not called: all numbers come as strings.
  bool Int(int) { return false; }
  bool Uint(unsigned) { return false; }
  bool Int64(int64_t) { return false; }
  bool Uint64(uint64_t) { return false; }
  bool Double(double) { return false; }

 private:
  HeaderBuilder& builder_;
};

/// `rest` is the text from the place of the error on.
std::string reason_of(rapidjson::ParseErrorCode code, std::string_view rest) {
  if (!rest.empty() && static_cast<unsigned char>(rest.front()) < ' ') {
    return "unexpected control character " + in_quotes(rest.substr(0, 1));
  }
  switch (code) {
    case rapidjson::kParseErrorDocumentRootNotSingular:
      return "trailing characters after the object";
    case rapidjson::kParseErrorDocumentEmpty:
      return "the header is empty";
    case rapidjson::kParseErrorNumberTooBig:
      return "number out of range";
    case rapidjson::kParseErrorStringUnicodeSurrogateInvalid:
      return "lone surrogate in a string";
    default: {
      // RapidJSON's sentences begin upper-case and end in a full stop.
      std::string text = rapidjson::GetParseError_En(code);
      text.front() = static_cast<char>(text.front() | 0x20);
      text.pop_back();
      return text;
    }
  }
}

[[noreturn]] void throw_invalid(size_t offset, const std::string& reason) {
  throw SafetensorError("invalid JSON in header at byte " + std::to_string(offset) + ": " + reason);
}

}  // namespace

HeaderContent parse_header_json(std::string_view json) {
  if (const size_t valid = utf8_prefix(json); valid != json.size()) {
    throw SafetensorError("invalid UTF-8 in header at byte " + std::to_string(valid));
  }
  HeaderContent header(json);
  std::string text(json);
  HeaderBuilder builder(header);
  Handler handler(builder);
  rapidjson::InsituStringStream stream(text.data());
  rapidjson::Reader reader;
  const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, handler);
  if (result.Code() == rapidjson::kParseErrorTermination) {
    throw_invalid(result.Offset(), builder.error());
  }
  if (result.IsError()) {
    throw_invalid(result.Offset(), reason_of(result.Code(), json.substr(result.Offset())));
  }
  // To the parser, a NUL byte is the end of the input.
  if (stream.Tell() != json.size()) {
    throw_invalid(stream.Tell(), "trailing characters after the object");
  }
  return header;
}

}  // namespace torch_safetensors::format
