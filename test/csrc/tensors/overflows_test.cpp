#include "tensors/overflows.h"

#include <ATen/Functions.h>

#include <cmath>
#include <vector>

#include "tensors/safetensors_file.h"
#include "tensors/write_into.h"

namespace torch_safetensors::tensors {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool is_lost(const at::Tensor& number, c10::ScalarType to) {
  Overflows overflows;
  overflows.add("x", number, to);
  return !overflows.warning("f").empty();
}

/// Every number of a type of 16 bits.
at::Tensor all_numbers(c10::ScalarType type) {
  return at::arange(-32768, 32768, at::kInt).to(at::kShort).view(type);
}

TEST(Overflows, AreWhatTheConversionMakesOfEveryNumber) {
  for (const auto from : {at::kHalf, at::kBFloat16}) {
    for (const auto to : {at::kHalf, at::kBFloat16, at::kFloat8_e5m2, at::kFloat8_e5m2fnuz,
                          at::kFloat8_e4m3fnuz, at::kFloat8_e8m0fnu, at::kFloat}) {
      const at::Tensor numbers = all_numbers(from);
      const at::Tensor expected =
          at::isfinite(numbers).logical_and(at::isfinite(numbers.to(to).to(at::kFloat)).logical_not());
      const int64_t count = expected.sum().item<int64_t>();
      Overflows overflows;
      overflows.add("x", numbers, to);
      const std::string warning = overflows.warning("f");
      if (count == 0) {
        EXPECT_EQ(warning, "") << from << " to " << to;
      } else {
        EXPECT_EQ(warning.rfind("f: " + std::to_string(count) + " finite values are out of range", 0), 0U)
            << from << " to " << to << ": " << warning;
      }
    }
  }
}

TEST(Overflows, BeginWhereFloatsDoNotRoundToTheLargestNumberAnyMore) {
  for (const auto& [to, bound] : std::vector<std::pair<c10::ScalarType, float>>{
           {at::kHalf, 65520.F},
           {at::kBFloat16, 0x1.ffp127F},
           {at::kFloat8_e5m2, 61440.F},
           {at::kFloat8_e4m3fnuz, 248.F},
       }) {
    const float below = std::nextafter(bound, 0.F);
    for (const float sign : {1.F, -1.F}) {
      EXPECT_TRUE(is_lost(at::full({3}, sign * bound), to)) << to;
      EXPECT_FALSE(std::isfinite(at::full({}, sign * bound).to(to).to(at::kFloat).item<float>())) << to;
      EXPECT_FALSE(is_lost(at::full({3}, sign * below), to)) << to;
      EXPECT_TRUE(std::isfinite(at::full({}, sign * below).to(to).to(at::kFloat).item<float>())) << to;
    }
  }
}

TEST(Overflows, CountWhatADtypeWithoutInfinityCutsOff) {
  EXPECT_FALSE(is_lost(at::full({2}, 464.F), at::kFloat8_e4m3fn));  // goes to 448, the next number there is
  EXPECT_TRUE(is_lost(at::full({2}, 465.F), at::kFloat8_e4m3fn));
  EXPECT_TRUE(is_lost(at::full({2}, 1e30F), at::kFloat8_e4m3fn));
}

TEST(Overflows, OfDoublesBeginWhereTheyRoundToAFloatThatIsOne) {
  const double almost = 65519.9999999;
  const at::Tensor number = at::full({}, almost, at::kDouble);
  EXPECT_TRUE(std::isinf(number.to(at::kHalf).to(at::kFloat).item<float>()));
  EXPECT_TRUE(is_lost(number, at::kHalf));
  EXPECT_FALSE(is_lost(at::full({}, 65519.0, at::kDouble), at::kHalf));
  EXPECT_TRUE(is_lost(at::full({}, 3.5e38, at::kDouble), at::kFloat));
  EXPECT_FALSE(is_lost(at::full({}, 3.4e38, at::kDouble), at::kFloat));
}

TEST(Overflows, AreNeitherInfinitiesNorNaNsThatWereThere) {
  const at::Tensor numbers = at::full({4}, kInfinity);
  numbers[1] = -kInfinity;
  numbers[2] = std::nanf("");
  numbers[3] = 1.F;
  EXPECT_FALSE(is_lost(numbers, at::kHalf));
  numbers[3] = 1e6F;
  Overflows overflows;
  overflows.add("x", numbers, at::kHalf);
  EXPECT_EQ(overflows.warning("f").rfind("f: 1 finite value is out of range", 0), 0U);
}

TEST(Overflows, AreFoundInComplexAndInIntegers) {
  EXPECT_TRUE(is_lost(at::complex(at::ones({1}), at::full({1}, 1e6F)), at::kComplexHalf));
  EXPECT_TRUE(is_lost(at::full({1}, 70'000, at::kLong), at::kHalf));
  EXPECT_FALSE(is_lost(at::full({1}, 60'000, at::kLong), at::kHalf));
  EXPECT_FALSE(is_lost(at::full({1}, 70'000, at::kLong), at::kBFloat16));
}

TEST(Overflows, AreNoneWithoutData) {
  EXPECT_FALSE(is_lost(at::empty({0}), at::kHalf));
  EXPECT_FALSE(is_lost(at::full({2}, 1e9F, at::kMeta), at::kHalf));
}

TEST(Overflows, AreNamedWithCountsAndFiveAtMost) {
  Overflows overflows;
  for (int i = 0; i < 8; ++i) {
    overflows.add("t" + std::to_string(i), at::full({i}, 1e6F), at::kHalf);
  }
  EXPECT_EQ(overflows.warning("f"),
            "f: 28 finite values are out of range of the dtype converted to, and became infinite, NaN or its "
            "largest number: 1 of tensor 't1' (F32 to F16), 2 of tensor 't2' (F32 to F16), 3 of tensor 't3' "
            "(F32 to F16), 4 of tensor 't4' (F32 to F16), 5 of tensor 't5' (F32 to F16), and 2 more tensors; "
            "choose a dtype with a larger range to keep them");
}

TEST(Overflows, AreFoundByPieces) {
  const at::Tensor numbers = at::ones({(3 << 20) + 5});
  numbers[(1 << 20) - 1] = 1e6F;
  numbers[(3 << 20) + 4] = -1e6F;
  Overflows overflows;
  overflows.add("x", numbers, at::kHalf);
  EXPECT_NE(overflows.warning("f").find("2 of tensor 'x'"), std::string::npos);
}

TEST(Overflows, AreToldOfByWhatIsWrittenInto) {
  const io::TestDirectory directory;
  TensorDict tensors;
  tensors.insert("w", at::full({3}, 1e6F));
  save_file(tensors, directory / "m");
  const Checkpoint file(directory / "m", "auto");
  const Target target{&file.entry("w"), at::zeros({3}, at::kHalf)};
  Overflows overflows;
  write_into(file, {&target, 1}, &overflows);
  EXPECT_NE(overflows.warning("f").find("3 of tensor 'w' (F32 to F16)"), std::string::npos);
}

}  // namespace
}  // namespace torch_safetensors::tensors
