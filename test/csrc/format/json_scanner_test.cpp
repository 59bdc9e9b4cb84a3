#include "format/json_scanner.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace torch_safetensors::format {
namespace {

/// The string at the start of `json`, with ! behind it where it has bytes beyond ASCII.
std::optional<std::string> string_of(const std::string& json) {
  // In memory of its own, where sanitizers see each byte that is read too much.
  const std::vector<char> bytes(json.begin(), json.end());
  JsonScanner scanner({bytes.data(), bytes.size()});
  std::string_view text;
  bool ascii = false;
  if (!scanner.string(text, ascii)) {
    return std::nullopt;
  }
  return std::string(text) + (ascii ? "" : "!");
}

std::optional<uint64_t> number_of(const std::string& json) {
  const std::vector<char> bytes(json.begin(), json.end());
  JsonScanner scanner({bytes.data(), bytes.size()});
  uint64_t value = 0;
  return scanner.number(value) && scanner.at_end() ? std::optional(value) : std::nullopt;
}

TEST(JsonScanner, TakesStringsOfEveryLength) {
  for (size_t length = 0; length < 40; ++length) {
    const std::string text(length, 'a');
    EXPECT_EQ(string_of('"' + text + '"'), text);
    EXPECT_EQ(string_of('"' + text + "\",\"behind\\\xFF it"), text);
    EXPECT_EQ(string_of('"' + text), std::nullopt);
  }
}

TEST(JsonScanner, LooksAtEveryByteOfAString) {
  for (int c = 0; c < 256; ++c) {
    for (size_t before = 0; before < 18; ++before) {
      for (const size_t after : {0, 1, 7, 8, 20}) {
        const std::string text = std::string(before, 'a') + static_cast<char>(c) + std::string(after, 'b');
        const std::optional<std::string> found = string_of('"' + text + '"');
        if (c == '"') {
          EXPECT_EQ(found, std::string(before, 'a'));
        } else if (c < 0x20 || c == '\\') {
          EXPECT_EQ(found, std::nullopt) << c << " " << before;
        } else {
          EXPECT_EQ(found, text + (c < 0x80 ? "" : "!")) << c << " " << before;
        }
      }
    }
  }
}

TEST(JsonScanner, TakesUnsignedIntegers) {
  EXPECT_EQ(number_of("0"), 0u);
  EXPECT_EQ(number_of(" \t\r\n907"), 907u);
  EXPECT_EQ(number_of("9999999999999999999"), 9999999999999999999u);
}

TEST(JsonScanner, LeavesOtherNumbersToOthers) {
  for (const char* const text : {"", "-1", "-0", "+1", "00", "01", "1.0", "1e0", "x", "/", ":", "\"1\"",
                                 "10000000000000000000", "18446744073709551616", "99999999999999999999999"}) {
    EXPECT_EQ(number_of(text), std::nullopt) << text;
  }
}

TEST(JsonScanner, TakesWhatIsNextBehindWhitespace) {
  JsonScanner scanner(" \t\r\n{ }\v");
  EXPECT_FALSE(scanner.take('}'));
  EXPECT_TRUE(scanner.take('{'));
  EXPECT_TRUE(scanner.take('}'));
  EXPECT_FALSE(scanner.at_end());
  EXPECT_FALSE(scanner.take('}'));
  EXPECT_FALSE(JsonScanner("").take('{'));
  EXPECT_TRUE(JsonScanner("").at_end());
  EXPECT_TRUE(JsonScanner(" \n").at_end());
}

}  // namespace
}  // namespace torch_safetensors::format
