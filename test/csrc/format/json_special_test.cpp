#include "format/json_special.h"

#include <gtest/gtest.h>

#include <bit>

namespace torch_safetensors::format {
namespace {

TEST(JsonSpecial, IsWhatJsonEscapes) {
  for (int c = 0; c < 256; ++c) {
    EXPECT_EQ(is_special(static_cast<char>(c)), c < 0x20 || c == '"' || c == '\\') << c;
  }
}

TEST(JsonSpecial, IsFoundFirstInAWord) {
  for (uint64_t c = 0; c < 256; ++c) {
    for (uint64_t d = 0; d < 256; ++d) {
      for (int place = 0; place < 8; ++place) {
        // All bytes `c` but one: those below it decide alone.
        const uint64_t ones = 0x0101010101010101;
        const uint64_t word = ((ones * c) & ~(uint64_t{0xFF} << (8 * place))) | d << (8 * place);
        const bool first = is_special(static_cast<char>(place == 0 ? d : c));
        const uint64_t found = special_bytes(word);
        if (first) {
          EXPECT_EQ(std::countr_zero(found), 7) << c << " " << d << " " << place;
        } else if (place > 0 && is_special(static_cast<char>(d))) {
          EXPECT_EQ(std::countr_zero(found), 8 * place + 7) << c << " " << d << " " << place;
        } else if (place > 0) {
          EXPECT_EQ(found, 0u) << c << " " << d << " " << place;
        }
      }
    }
  }
}

}  // namespace
}  // namespace torch_safetensors::format
