#include "io/temporary_name.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace torch_safetensors::io {
namespace {

TEST(TemporaryName, HasItsParts) {
  const std::string token(16, 'a');
  for (const std::string& domain : {std::string(), std::string("0123456789abcdef")}) {
    const std::string prefix = temporary_prefix("model", domain);
    const auto plain = parse_temporary_name(prefix + "12");
    ASSERT_TRUE(plain);
    EXPECT_EQ(plain->target, "9de543933e6e703a");
    EXPECT_EQ(plain->domain, domain);
    EXPECT_EQ(plain->slot, 12);
    EXPECT_EQ(plain->token, "");
    const auto random = parse_temporary_name(prefix + "1023-" + token);
    ASSERT_TRUE(random);
    EXPECT_EQ(random->slot, 1023);
    EXPECT_EQ(random->token, token);
  }
}

TEST(TemporaryName, IsNoOtherThanOurs) {
  const std::string digits = "0123456789abcdef";
  for (const std::string& name : std::vector<std::string>{
           std::string(),
           std::string(".st-"),
           std::string(".st-notes.txt"),
           std::string(".st-not-ours"),
           ".st-" + digits,
           ".st-" + digits + "-",
           ".st-" + digits + "-x",
           ".st-" + digits + "--1",
           ".st-" + digits + "-+1",
           ".st-" + digits + "- 1",
           ".st-" + digits + "-01",
           ".st-" + digits + "-1024",
           ".st-" + digits + "-99999999999999999999",
           ".st-" + digits + "-999.bak",
           ".st-" + digits + "-7-",
           ".st-" + digits + "-7-" + digits + "0",
           ".st-" + digits + "-7-" + digits.substr(1),
           ".st-" + digits + ".-7",
           ".st-" + digits + "." + digits.substr(1) + "-7",
           ".st-" + digits + "." + digits,
           ".st-0123456789ABCDEF-7",
           ".st-0123456789abcdeg-7",
           "st-" + digits + "-7",
           "x.st-" + digits + "-7",
       }) {
    EXPECT_FALSE(parse_temporary_name(name)) << name;
  }
}

TEST(TemporaryName, TokensDiffer) {
  std::set<std::string> tokens;
  for (int i = 0; i < 100; ++i) {
    tokens.insert(random_token());
  }
  EXPECT_EQ(tokens.size(), 100U);
  EXPECT_EQ(tokens.begin()->size(), 16U);
}

}  // namespace
}  // namespace torch_safetensors::io
