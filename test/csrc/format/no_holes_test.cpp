#include "format/no_holes.h"

#include <gtest/gtest.h>

#include <vector>

#include "error_of.h"

namespace torch_safetensors::format {
namespace {

struct Range {
  std::string_view name;
  uint64_t begin;
  uint64_t end;
};

void check(const std::vector<Range>& ranges, uint64_t data_size) {
  std::vector<TensorEntry> tensors;
  for (const Range& range : ranges) {
    tensors.push_back({range.name, DType::kU8, {}, range.begin, range.end});
  }
  check_no_holes(tensors);
  check_data_size(tensors, data_size);
}

TEST(NoHoles, AcceptsTensorsBackToBack) {
  check({}, 0);
  check({{"a", 0, 4}}, 4);
  check({{"a", 0, 1}, {"b", 1, 4}, {"c", 4, 100}}, 100);
}

TEST(NoHoles, AcceptsEmptyTensorsAtEveryBoundary) {
  check({{"a", 0, 0}, {"b", 0, 0}, {"c", 0, 4}, {"d", 4, 4}, {"e", 4, 8}, {"f", 8, 8}}, 8);
}

TEST(NoHoles, RefusesAHole) {
  EXPECT_EQ(error_of([] { check({{"a", 0, 4}, {"b", 8, 12}}, 12); }),
            "tensor 'b': invalid offset: data_offsets [8, 12) leave a hole after byte 4");
}

TEST(NoHoles, RefusesAStartBehindZero) {
  EXPECT_EQ(error_of([] { check({{"a", 4, 8}}, 8); }),
            "tensor 'a': invalid offset: data_offsets [4, 8) leave a hole after byte 0");
  EXPECT_EQ(error_of([] { check({{"a", 4, 4}}, 0); }),
            "tensor 'a': invalid offset: data_offsets [4, 4) leave a hole after byte 0");
}

TEST(NoHoles, RefusesAnOverlap) {
  EXPECT_EQ(error_of([] { check({{"a", 0, 8}, {"b", 4, 12}}, 12); }),
            "tensor 'b': invalid offset: data_offsets [4, 12) overlap the tensor that ends at byte 8");
  EXPECT_EQ(error_of([] { check({{"a", 0, 8}, {"b", 0, 8}}, 8); }),
            "tensor 'b': invalid offset: data_offsets [0, 8) overlap the tensor that ends at byte 8");
  EXPECT_EQ(error_of([] { check({{"a", 0, 8}, {"b", 4, 4}}, 8); }),
            "tensor 'b': invalid offset: data_offsets [4, 4) overlap the tensor that ends at byte 8");
}

TEST(NoHoles, RefusesAnEndBeforeTheBegin) {
  EXPECT_EQ(error_of([] { check({{"a", 0, 4}, {"b", 4, 0}}, 0); }),
            "tensor 'b': invalid offset: data_offsets [4, 0) end before they begin");
  EXPECT_EQ(error_of([] { check({{"a", UINT64_MAX, 0}}, 0); }),
            "tensor 'a': invalid offset: data_offsets [18446744073709551615, 0) end before they begin");
}

TEST(NoHoles, RefusesDataThatIsMissing) {
  EXPECT_EQ(error_of([] { check({{"a", 0, 8}}, 7); }),
            "incomplete metadata, file not fully covered: the tensors end at byte 8 but the file has 7 "
            "bytes of data");
  EXPECT_EQ(error_of([] { check({{"a", 0, UINT64_MAX}}, 7); }),
            "incomplete metadata, file not fully covered: the tensors end at byte 18446744073709551615 but "
            "the file has 7 bytes of data");
}

TEST(NoHoles, RefusesDataThatIsLeftOver) {
  EXPECT_EQ(error_of([] { check({{"a", 0, 8}}, 9); }),
            "incomplete metadata, file not fully covered: the tensors end at byte 8 but the file has 9 "
            "bytes of data");
  EXPECT_EQ(error_of([] { check({}, 1); }),
            "incomplete metadata, file not fully covered: the tensors end at byte 0 but the file has 1 "
            "bytes of data");
}

TEST(NoHoles, HoldsForTheTensorsAloneToo) {
  const TensorEntry tensor{"a", DType::kU8, {}, 0, 4};
  check_no_holes({&tensor, 1});
  check_data_size({&tensor, 1}, 4);
  EXPECT_EQ(error_of([&] { check_data_size({&tensor, 1}, 3); }),
            "incomplete metadata, file not fully covered: the tensors end at byte 4 but the file has 3 bytes "
            "of data");
}

}  // namespace
}  // namespace torch_safetensors::format
