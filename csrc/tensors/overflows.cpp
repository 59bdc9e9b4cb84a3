#include "tensors/overflows.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "format/dtype.h"
#include "format/text.h"
#include "tensors/scalar_type.h"

namespace torch_safetensors::tensors {
namespace {

/// So many tensors are named.
constexpr size_t kNamed = 5;

/// Elements looked at together, as float64.
constexpr int64_t kPiece = int64_t{1} << 20;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The largest number of a dtype, and the smallest that it has no number for: halfway to the next one if it
/// had any, where rounding to even leads there.
struct Range {
  c10::ScalarType type;
  double largest;
  double beyond;
};

constexpr Range kFloats[] = {
    {at::kDouble, std::numeric_limits<double>::max(), kInfinity},
    {at::kFloat, 0x1.fffffep127, 0x1.ffffffp127},
    {at::kBFloat16, 0x1.fep127, 0x1.ffp127},
    {at::kHalf, 65504, 65520},
    {at::kFloat8_e5m2, 57344, 61440},
    {at::kFloat8_e5m2fnuz, 57344, 61440},
    {at::kFloat8_e4m3fn, 448, 464 + 0x1p-15},  // 464 goes to 448, which is even
    {at::kFloat8_e4m3fnuz, 240, 248},
    {at::kFloat8_e8m0fnu, 0x1p127, 0x1.8p127},
};

double largest_of(c10::ScalarType type) {
  const auto* const range = std::ranges::find(kFloats, type, &Range::type);
  if (range != std::end(kFloats)) {
    return range->largest;
  }
  return std::ldexp(1, static_cast<int>(8 * c10::elementSize(type)));  // of integers, or more
}

/// The smallest number of `from` that `to` has none for; infinity where there is none.
double first_beyond(c10::ScalarType from, c10::ScalarType to) {
  const auto* const range = std::ranges::find(kFloats, to, &Range::type);
  if (range == std::end(kFloats) || largest_of(from) < range->beyond) {
    return kInfinity;
  }
  if (from == at::kDouble && to != at::kFloat) {
    // Torch rounds to float first: what is halfway to that bound goes there.
    const double before = std::nextafter(static_cast<float>(range->beyond), 0.F);
    return (before + range->beyond) / 2;
  }
  return range->beyond;
}

bool has_minimum(c10::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

/// One pass without temporary memory, which nearly always says that there is nothing to count.
bool is_within(const at::Tensor& numbers, double bound) {
  if (!has_minimum(numbers.scalar_type())) {
    return false;
  }
  const auto [least, most] = at::aminmax(numbers);
  return least.item<double>() > -bound && most.item<double>() < bound;
}

int64_t count_beyond(const at::Tensor& numbers, double bound) {
  int64_t count = 0;
  for (int64_t begin = 0; begin < numbers.numel(); begin += kPiece) {
    const int64_t length = std::min(kPiece, numbers.numel() - begin);
    const at::Tensor sizes = numbers.narrow(0, begin, length).cpu().to(at::kDouble).abs();
    count += at::logical_and(sizes.ge(bound), sizes.lt(kInfinity)).sum().item<int64_t>();
  }
  return count;
}

std::string_view name_of(c10::ScalarType type) {
  const auto dtype = to_dtype(type);
  return dtype ? format::dtype_name(*dtype) : std::string_view(c10::toString(type));
}

}  // namespace

void Overflows::add(const std::string& name, const at::Tensor& from, c10::ScalarType to) {
  const at::NoGradGuard no_grad;
  const at::Tensor numbers = (from.is_complex() ? at::view_as_real(from) : from).reshape({-1});
  const double bound = first_beyond(numbers.scalar_type(), c10::toRealValueType(to));
  if (bound == kInfinity || numbers.numel() == 0 || numbers.is_meta() || is_within(numbers, bound)) {
    return;
  }
  const int64_t values = count_beyond(numbers, bound);
  if (values == 0) {
    return;
  }
  if (!lost_.empty() && lost_.back().name == name) {
    lost_.back().values += values;  // of another piece of it
  } else {
    lost_.push_back({name, values, from.scalar_type(), to});
  }
}

std::string Overflows::warning(const std::string& source) const {
  if (lost_.empty()) {
    return {};
  }
  int64_t values = 0;
  std::string names;
  for (size_t i = 0; i < lost_.size(); ++i) {
    const Lost& lost = lost_[i];
    values += lost.values;
    if (i < kNamed) {
      names += (i == 0 ? "" : ", ") + std::to_string(lost.values) + " of tensor " +
               format::in_quotes(lost.name) + " (" + std::string(name_of(lost.from)) + " to " +
               std::string(name_of(lost.to)) + ")";
    }
  }
  if (lost_.size() > kNamed) {
    names += ", and " + std::to_string(lost_.size() - kNamed) + " more tensors";
  }
  return source + ": " + std::to_string(values) + (values == 1 ? " finite value is" : " finite values are") +
         " out of range of the dtype converted to, and became infinite, NaN or its largest number: " + names +
         "; choose a dtype with a larger range to keep them";
}

}  // namespace torch_safetensors::tensors
