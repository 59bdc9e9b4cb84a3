#include "format/json_reader.h"

#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <string>

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

/// Objects and arrays within each other, the outermost included. The reference's limit.
constexpr int kMaxDepth = 127;

/// RapidJSON's events, handed on; and what it lets through, refused.
class Handler {
 public:
  using Size = rapidjson::SizeType;

  explicit Handler(JsonEvents& events) : events_(events) {}

  const std::string& error() const { return error_.empty() ? events_.error() : error_; }

  bool Null() { return events_.on_null(); }
  bool Bool(bool) { return events_.on_bool(); }
  bool RawNumber(const char* text, Size size, bool) { return events_.on_number({text, size}); }
  bool String(const char* text, Size size, bool) {
    return is_unicode({text, size}) && events_.on_string({text, size});
  }
  bool Key(const char* text, Size size, bool) {
    return is_unicode({text, size}) && events_.on_key({text, size});
  }
  bool StartObject() { return enter() && events_.on_object_begin(); }
  bool EndObject(Size) { return leave() && events_.on_object_end(); }
  bool StartArray() { return enter() && events_.on_array_begin(); }
  bool EndArray(Size) { return leave() && events_.on_array_end(); }

  // Required by RapidJSON, and not called: all numbers come as strings.
  bool Int(int) { return false; }
  bool Uint(unsigned) { return false; }
  bool Int64(int64_t) { return false; }
  bool Uint64(uint64_t) { return false; }
  bool Double(double) { return false; }

 private:
  /// RapidJSON lets the escape of a lone low surrogate through and encodes it as if it were a character.
  /// In text that was UTF-8 before, nothing else can put such bytes there.
  bool is_unicode(std::string_view text) {
    return !has_surrogate(text) || fail("lone surrogate in a string");
  }

  bool enter() {
    return ++depth_ <= kMaxDepth ||
           fail("recursion limit exceeded: more than " + std::to_string(kMaxDepth) + " levels");
  }

  bool leave() {
    --depth_;
    return true;
  }

  bool fail(std::string error) {
    error_ = std::move(error);
    return false;
  }

  JsonEvents& events_;
  int depth_ = 0;
  std::string error_;
};

/// `what` names the text, `rest` is what of it follows the place of the error.
std::string reason_of(rapidjson::ParseErrorCode code, std::string_view what, std::string_view rest) {
  if (!rest.empty() && static_cast<unsigned char>(rest.front()) < ' ') {
    return "unexpected control character " + in_quotes(rest.substr(0, 1));
  }
  switch (code) {
    case rapidjson::kParseErrorDocumentRootNotSingular:
      return "trailing characters after the object";
    case rapidjson::kParseErrorDocumentEmpty:
      return "the " + std::string(what) + " is empty";
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

[[noreturn]] void throw_invalid(std::string_view what, size_t offset, const std::string& reason) {
  throw SafetensorError("invalid JSON in " + std::string(what) + " at byte " + std::to_string(offset) + ": " +
                        reason);
}

}  // namespace

void read_json(std::string_view json, std::string_view what, JsonEvents& events) {
  if (const size_t valid = utf8_prefix(json); valid != json.size()) {
    throw SafetensorError("invalid UTF-8 in " + std::string(what) + " at byte " + std::to_string(valid));
  }
  std::string text(json);
  Handler handler(events);
  rapidjson::InsituStringStream stream(text.data());
  rapidjson::Reader reader;
  const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, handler);
  if (result.Code() == rapidjson::kParseErrorTermination) {
    throw_invalid(what, result.Offset(), handler.error());
  }
  if (result.IsError()) {
    throw_invalid(what, result.Offset(), reason_of(result.Code(), what, json.substr(result.Offset())));
  }
  // To the parser, a NUL byte is the end of the input.
  if (stream.Tell() != json.size()) {
    throw_invalid(what, stream.Tell(), "trailing characters after the object");
  }
}

}  // namespace torch_safetensors::format
