// Plain headers are read by code of our own, all others by RapidJSON's: no header may tell them apart.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>

#include "error_of.h"
#include "format/header.h"
#include "format/header_json.h"
#include "format/plain_header.h"
#include "same_header.h"

namespace torch_safetensors::format {
namespace {

/// MUTATED_HEADERS=20000000 in the environment makes this a long run.
size_t rounds() {
  const char* const text = std::getenv("MUTATED_HEADERS");
  return text == nullptr ? 60'000 : std::strtoul(text, nullptr, 10);
}

const std::vector<std::string> kHeaders{
    "{}",
    R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}       )",
    R"({"__metadata__":{"format":"pt","a":""},"model.layers.0.weight":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},)"
    R"("model.layers.1.weight":{"dtype":"U8","shape":[],"data_offsets":[2,3]}})",
    R"({"a": {"dtype": "I64", "shape": [1, 2], "data_offsets": [0, 16]}, "b": {"dtype": "F8_E5M2FNUZ", "shape": [0], "data_offsets": [16, 16]}})",
    "{\"\u00E9\u4E2D\U0001F600\":{\"data_offsets\":[0,1],\"shape\":[1,1,1],\"dtype\":\"BOOL\"},\"__metadata__"
    "\":{\"\u00E9\":\"\uFFFF\"}}",
    R"({"w":{"dtype":"F4","shape":[18446744073709551615,9223372036854775807],"data_offsets":[18446744073709551615,9999999999999999999]}})",
    "\n{\t\"w\" : { \"dtype\" : \"U16\" ,\r\n\"shape\" : [ 10 , 20 ] , \"data_offsets\" : [ 0 , 400 ] } }\n",
};

/// What is put into headers: pieces that JSON or the format know, and bytes that matter to one of the
/// parsers.
const std::vector<std::string> kPieces{
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    " ",
    "\n",
    "\t",
    "\r",
    "0",
    "1",
    "9",
    "-",
    "+",
    ".",
    "e",
    "E",
    "_",
    "x",
    "/",
    std::string(1, '\0'),
    "\x01",
    "\x1F",
    "\x7F",
    "\x80",
    "\xC3",
    "\xA9",
    "\xED\xA0\x80",
    "\xF0\x9F\x98\x80",
    "\xFF",
    "\\u0061",
    "\\ud800",
    "\\n",
    "null",
    "true",
    "1e5",
    "1.0",
    "1e400",
    "9223372036854775808",
    "18446744073709551616",
    "\"dtype\"",
    "\"shape\":[1]",
    "\"data_offsets\":[0,1]",
    "\"__metadata__\"",
    "\"k\":\"v\"",
    "\"F32\"",
    "\"x\":0,",
    "[]",
    "{}",
    "[[",
    ",,",
};

class Mutator {
 public:
  std::string next() {
    std::string json = kHeaders[below(kHeaders.size())];
    for (size_t i = below(4) == 0 ? 3 : 1; i > 0; --i) {
      mutate(json);
    }
    return json;
  }

 private:
  size_t below(size_t limit) { return random_() % limit; }

  void mutate(std::string& json) {
    const size_t at = below(json.size() + 1);
    const size_t size = std::min(below(4) == 0 ? below(40) : below(3), json.size() - at);
    switch (below(6)) {
      case 0:
        json.erase(at, size);
        break;
      case 1:
        json.insert(at, kPieces[below(kPieces.size())]);
        break;
      case 2:
        json.replace(at, size, kPieces[below(kPieces.size())]);
        break;
      case 3:
        json.insert(below(json.size() + 1), json.substr(at, size));
        break;
      case 4:
        // A letter or digit by another: most of these are still headers.
        if (at < json.size() && std::isalnum(static_cast<unsigned char>(json[at])) != 0) {
          json[at] = std::isdigit(static_cast<unsigned char>(json[at])) != 0
                         ? static_cast<char>('0' + below(10))
                         : static_cast<char>('a' + below(26));
        }
        break;
      default:
        if (at < json.size()) {
          json[at] = static_cast<char>(below(256));
        }
    }
  }

  std::mt19937_64 random_{20240607};
};

TEST(MutatedHeaders, MeanTheSameToBothParsers) {
  Mutator mutator;
  size_t plain_ones = 0;
  size_t refused = 0;
  const size_t count = rounds();
  for (size_t i = 0; i < count && !testing::Test::HasFailure(); ++i) {
    const std::string json = mutator.next();
    const std::optional<HeaderContent> plain = read_plain_header(json);
    std::optional<HeaderContent> parsed;
    const std::string error = error_of([&] { parsed.emplace(parse_header_json(json)); });
    if (plain) {
      ++plain_ones;
      ASSERT_TRUE(parsed) << testing::PrintToString(json) << ": " << error;
      expect_same(*plain, *parsed);
    } else if (!parsed) {
      ++refused;
      // The one text that both routes have for it.
      EXPECT_EQ(error_of([&] { parse_header(json, 0); }), error);
    }
    EXPECT_FALSE(testing::Test::HasFailure()) << testing::PrintToString(json);
  }
  // Else this would be a test of something else.
  EXPECT_GT(plain_ones, count / 10);
  EXPECT_GT(refused, count / 10);
  RecordProperty("plain", static_cast<int>(plain_ones));
  RecordProperty("refused", static_cast<int>(refused));
}

}  // namespace
}  // namespace torch_safetensors::format
