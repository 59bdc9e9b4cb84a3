// Parts of a tensor: read from a file they are what torch's own indexing makes of the whole, or refused as
// there.
#include <ATen/ATen.h>
#include <fuzzer/FuzzedDataProvider.h>

#include <cstring>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scratch_file.h"
#include "tensors/safe_open.h"

namespace torch_safetensors::fuzz {
namespace {

using tensors::SafeOpen;

/// A bound of a slice: mostly near the tensor, now and then anything.
std::optional<int64_t> any_bound(FuzzedDataProvider& input) {
  switch (input.ConsumeIntegralInRange<int>(0, 5)) {
    case 0:
      return std::nullopt;
    case 1:
      return input.ConsumeIntegral<int64_t>();
    default:
      return input.ConsumeIntegralInRange<int64_t>(-20, 20);
  }
}

template <typename Read>
std::optional<at::Tensor> unless_refused(const Read& read) {
  try {
    return read();
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

void require_same(const std::optional<at::Tensor>& part, const std::optional<at::Tensor>& expected) {
  require(part.has_value() == expected.has_value(), "a part is refused where torch refuses it");
  require(
      !part || (part->sizes() == expected->sizes() && part->is_contiguous() && at::equal(*part, *expected)),
      "a part is what torch makes of the whole");
}

void check_slice(FuzzedDataProvider& input, const SafeOpen& file, const at::Tensor& whole) {
  const auto dim = input.ConsumeIntegralInRange<int64_t>(-5, 5);
  const std::optional<int64_t> start = any_bound(input);
  const std::optional<int64_t> end = any_bound(input);
  // torch itself overflows with larger ones.
  const int64_t step = input.ConsumeIntegralInRange<int64_t>(-2, input.ConsumeBool() ? 5 : int64_t{1} << 40);
  require_same(unless_refused([&] { return file.get_slice("x", dim, start, end, step); }),
               unless_refused([&] { return whole.slice(dim, start, end, step).contiguous(); }));
}

/// More than a fuzzer has memory for, though a number of elements that torch can count.
bool is_large(const std::vector<int64_t>& sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(count, size, &count)) {
      return false;
    }
  }
  return count > (1 << 20);
}

void check_view(FuzzedDataProvider& input, const SafeOpen& file, const at::Tensor& whole) {
  std::vector<int64_t> sizes(input.ConsumeIntegralInRange<size_t>(0, 5));
  std::vector<int64_t> strides(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) {
    sizes[i] =
        input.ConsumeBool() ? input.ConsumeIntegralInRange<int64_t>(-1, 8) : input.ConsumeIntegral<int64_t>();
    strides[i] = input.ConsumeBool() ? input.ConsumeIntegralInRange<int64_t>(-1, 50)
                                     : input.ConsumeIntegral<int64_t>();
  }
  const int64_t offset =
      input.ConsumeBool() ? input.ConsumeIntegralInRange<int64_t>(-1, 50) : input.ConsumeIntegral<int64_t>();
  if (is_large(sizes)) {
    return;
  }
  const auto part = unless_refused([&] { return file.get_view("x", sizes, strides, offset); });
  const auto expected = unless_refused([&] { return whole.as_strided(sizes, strides, offset).contiguous(); });
  if (part && expected) {
    require_same(part, expected);
  }
  // torch refuses some strides that nobody takes.
  require(!part || expected || part->numel() == 0, "a view with elements is one of torch's, too");
}

/// A file with the tensor as `x`, after `gap` other bytes: at any address.
std::vector<uint8_t> file_of(const at::Tensor& tensor, const std::string& dtype, size_t gap) {
  std::string shape;
  for (const int64_t dim : tensor.sizes()) {
    shape += (shape.empty() ? "" : ",") + std::to_string(dim);
  }
  const std::string json = R"({"gap":{"dtype":"U8","shape":[)" + std::to_string(gap) +
                           R"(],"data_offsets":[0,)" + std::to_string(gap) + R"(]},"x":{"dtype":")" + dtype +
                           R"(","shape":[)" + shape + R"(],"data_offsets":[)" + std::to_string(gap) + "," +
                           std::to_string(gap + tensor.nbytes()) + "]}}";
  std::vector<uint8_t> file(8 + json.size() + gap + tensor.nbytes());
  const uint64_t size = json.size();
  std::memcpy(file.data(), &size, sizeof size);
  std::copy(json.begin(), json.end(), file.begin() + 8);
  if (tensor.nbytes() > 0) {
    std::memcpy(file.data() + file.size() - tensor.nbytes(), tensor.const_data_ptr(), tensor.nbytes());
  }
  return file;
}

void check(FuzzedDataProvider& input) {
  static ScratchFile scratch;
  const auto [dtype, name] = input.PickValueInArray<std::pair<at::ScalarType, const char*>>(
      {{at::kByte, "U8"}, {at::kHalf, "F16"}, {at::kInt, "I32"}, {at::kLong, "I64"}});
  std::vector<int64_t> shape(input.ConsumeIntegralInRange<size_t>(0, 4));
  for (int64_t& dim : shape) {
    dim = input.ConsumeIntegralInRange<int64_t>(0, 9);
  }
  const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  // Small numbers, which half has, too, all different nearby.
  const at::Tensor whole = at::arange(count, at::kLong).remainder(2003).to(dtype).reshape(shape);
  scratch.fill(file_of(whole, name, input.ConsumeIntegralInRange<size_t>(0, 9)));
  const SafeOpen file(scratch.path(), at::kCPU, input.ConsumeBool() ? "mmap" : "pread");
  while (input.remaining_bytes() > 0) {
    if (input.ConsumeBool()) {
      check_slice(input, file, whole);
    } else {
      check_view(input, file, whole);
    }
  }
}

}  // namespace
}  // namespace torch_safetensors::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  torch_safetensors::fuzz::check(input);
  return 0;
}
