#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "format/header.h"
#include "format/serialize.h"

namespace torch_safetensors::format {
namespace {

using Shape = std::vector<int64_t>;

void expect_round_trip(const std::vector<TensorSpec>& specs) {
  const SerializedHeader written = serialize_header(specs, nullptr);
  const uint64_t size = parse_header_size(written.bytes, written.bytes.size() + written.data_size);
  const Header header =
      parse_header(std::string_view(written.bytes).substr(kPrefixSize, size), written.data_size);
  ASSERT_EQ(header.tensors().size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorSpec& spec = specs[written.order[i]];
    const TensorEntry* const tensor = header.find(spec.name);
    ASSERT_NE(tensor, nullptr) << spec.name;
    EXPECT_EQ(tensor->dtype, spec.dtype);
    EXPECT_TRUE(std::ranges::equal(tensor->shape, spec.shape));
    // Tensors without bytes may change places with what begins where they do.
    if (tensor->nbytes() > 0) {
      EXPECT_EQ(tensor, &header.tensors()[i]) << spec.name;
    }
  }
}

TEST(RoundTrip, OfEveryDType) {
  const Shape shape{3, 8};
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    specs.push_back({dtype_name(dtype), dtype, shape});
  }
  expect_round_trip(specs);
}

TEST(RoundTrip, OfShapesOfAllKinds) {
  const std::vector<Shape> shapes{{}, {0}, {1}, {5, 0, 7}, {0, INT64_MAX}, Shape(70, 1)};
  const std::vector<std::string> names{"a", "b", "c", "d", "e", "f"};
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    specs.push_back({names[i], DType::kF64, shapes[i]});
  }
  expect_round_trip(specs);
}

TEST(RoundTrip, OfManyTensorsInNoOrder) {
  constexpr size_t kCount = 20'000;
  const Shape shape{4};
  std::vector<std::string> names;
  for (size_t i = 0; i < kCount; ++i) {
    names.push_back("layer." + std::to_string(i * 7919 % kCount));
  }
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < kCount; ++i) {
    specs.push_back({names[i], static_cast<DType>(i % kDTypeCount), shape});
  }
  expect_round_trip(specs);
}

}  // namespace
}  // namespace torch_safetensors::format
