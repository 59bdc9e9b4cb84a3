#include "format/json_number.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <string>

namespace torch_safetensors::format {
namespace {

/// The smallest number that is rounded up beyond the largest double, 2^1024 - 2^970, written by printf.
std::string too_large() {
  char text[400];
  // Twice 2^1023, which is a double, less 2^970: digit by digit.
  std::snprintf(text, sizeof(text), "%.0f", std::ldexp(1.0, 1023));
  std::string twice(text);
  char less[400];
  std::snprintf(less, sizeof(less), "%.0f", std::ldexp(1.0, 970));
  std::string minus(less);
  minus.insert(0, twice.size() - minus.size(), '0');
  int carry = 0;
  for (size_t i = twice.size(); i-- > 0;) {
    const int digit = 2 * (twice[i] - '0') - (minus[i] - '0') + carry;
    twice[i] = static_cast<char>('0' + (digit + 10) % 10);
    carry = digit < 0 ? -1 : digit / 10;
  }
  return carry > 0 ? std::to_string(carry) + twice : twice;
}

TEST(JsonNumber, IsAnExactUnsignedInteger) {
  EXPECT_EQ(to_uint64("0"), 0u);
  EXPECT_EQ(to_uint64("18446744073709551615"), UINT64_MAX);
  for (const char* const text :
       {"18446744073709551616", "-0", "-1", "1.0", "1e0", "1E0", "99999999999999999999"}) {
    EXPECT_EQ(to_uint64(text), std::nullopt) << text;
  }
}

TEST(JsonNumber, IsNamedByWhatItIsInstead) {
  EXPECT_EQ(kind_of_number("1.0"), "a number that is not an integer");
  EXPECT_EQ(kind_of_number("-1e0"), "a number that is not an integer");
  EXPECT_EQ(kind_of_number("1E0"), "a number that is not an integer");
  EXPECT_EQ(kind_of_number("-0"), "a negative number");
  EXPECT_EQ(kind_of_number("18446744073709551616"), "a number over 18446744073709551615");
}

TEST(JsonNumber, FitsADoubleUpToTheExactLimit) {
  const std::string limit = too_large();
  ASSERT_EQ(limit.size(), 309u);
  std::string below = limit;
  --below.back();
  for (const std::string sign : {"", "-"}) {
    EXPECT_FALSE(fits_double(sign + limit));
    EXPECT_FALSE(fits_double(sign + limit + ".0"));
    EXPECT_FALSE(fits_double(sign + limit + "e0"));
    EXPECT_FALSE(fits_double(sign + "0.000" + limit + "e312"));
    EXPECT_FALSE(fits_double(sign + limit.substr(0, 1) + "." + limit.substr(1) + "0001e+308"));
    EXPECT_TRUE(fits_double(sign + below));
    EXPECT_TRUE(fits_double(sign + below + "." + std::string(1000, '9')));
    EXPECT_TRUE(fits_double(sign + limit.substr(0, 1) + "." + below.substr(1) + "E308"));
    EXPECT_TRUE(fits_double(sign + limit.substr(0, 300) + "e8"));
    EXPECT_TRUE(fits_double(sign + limit + "e-1"));
  }
}

TEST(JsonNumber, FitsADoubleWhateverItsForm) {
  for (const char* const text :
       {"0", "-0.0", "0e999999999999999999999", "0.000e+400", "1e-99999999999999999999", "1e308", "1e+308",
        "1.7976931348623157e308", "17976931348623157e292", "0.0000000001e318", "-0.1e309", "4.9e-324"}) {
    EXPECT_TRUE(fits_double(text)) << text;
  }
  for (const char* const text : {"1e309", "-1e309", "1E+309", "1.8e308", "10e308", "0.1e310", "0.00001e314",
                                 "1e99999999999999999999", "1.7976931348623159e308"}) {
    EXPECT_FALSE(fits_double(text)) << text;
  }
}

TEST(JsonNumber, FitsADoubleWhereStrtodSaysSo) {
  std::mt19937_64 random(20240607);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = random() % 2 == 0 ? "-" : "";
    text += std::to_string(random() % (random() % 2 == 0 ? 20 : UINT64_MAX));
    if (random() % 2 == 0) {
      text += "." + std::string(random() % 3, '0') + std::to_string(random());
    }
    text += (random() % 2 == 0 ? "e" : "E+") + std::to_string(285 + random() % 30);
    EXPECT_EQ(fits_double(text), std::isfinite(std::strtod(text.c_str(), nullptr))) << text;
  }
}

TEST(JsonNumber, MayHaveAMillionDigits) {
  const std::string digits(1'000'000, '9');
  EXPECT_TRUE(fits_double("0." + digits));
  EXPECT_FALSE(fits_double(digits));
  EXPECT_FALSE(fits_double(digits + "e-999000"));
  EXPECT_TRUE(fits_double(digits + "e-999692"));
  EXPECT_TRUE(fits_double("1e-" + digits));
  EXPECT_TRUE(fits_double("0." + std::string(1'000'000, '0') + "1e1000000"));
  EXPECT_FALSE(fits_double("0." + std::string(1'000'000, '0') + "1e1000310"));
}

}  // namespace
}  // namespace torch_safetensors::format
