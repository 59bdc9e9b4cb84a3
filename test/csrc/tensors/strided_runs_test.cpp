#include "tensors/strided_runs.h"

#include <gtest/gtest.h>

#include <string>

#include "io/test_directory.h"

namespace torch_safetensors::tensors {
namespace {

using Ints = std::vector<int64_t>;

/// The bytes of a view, one element after the other.
std::string elements(const std::string& tensor, const StridedView& view, int64_t item_size) {
  std::string result;
  const auto visit = [&](auto& self, size_t dim, int64_t offset) -> void {
    if (dim == view.sizes.size()) {
      result += tensor.substr(offset * item_size, item_size);
      return;
    }
    for (int64_t i = 0; i < view.sizes[dim]; ++i) {
      self(self, dim + 1, offset + i * view.strides[dim]);
    }
  };
  visit(visit, 0, view.offset);
  return result;
}

void expect_elements(const std::string& tensor, const StridedView& view, int64_t item_size) {
  const io::TestDirectory directory;
  const io::File file(io::write_file(directory / "f", "front" + tensor + "back"));
  const StridedRuns runs = strided_runs(view, item_size);
  const std::string expected = elements(tensor, view, item_size);
  ASSERT_EQ(runs.count * runs.nbytes, expected.size());
  std::string copied(expected.size(), '?');
  copy_runs(io::readable(tensor), runs, io::writable(copied));
  EXPECT_EQ(copied, expected);
  std::string read(expected.size(), '?');
  read_runs(file, 5, runs, io::writable(read));
  EXPECT_EQ(read, expected);
}

TEST(StridedRuns, AWholeTensorIsOneRun) {
  const StridedRuns runs = strided_runs({{2, 3}, {3, 1}, 0}, 4);
  EXPECT_EQ(runs.count, 1U);
  EXPECT_EQ(runs.nbytes, 24U);
  EXPECT_EQ(runs.offset, 0U);
}

TEST(StridedRuns, StridesThatNobodyTakesDoNotCount) {
  constexpr int64_t kHuge = int64_t{1} << 62;
  const StridedRuns empty = strided_runs({{kHuge, 0, 3}, {kHuge, kHuge, 2}, kHuge}, 8);
  EXPECT_EQ(empty.count, 0U);
  const StridedRuns one = strided_runs({{2, 1, 3}, {40, kHuge, 2}, 1}, 8);
  EXPECT_EQ(one.count, 6U);
  EXPECT_EQ(one.strides, (Ints{320, 16}));
}

TEST(StridedRuns, AScalarIsOneRun) {
  const StridedRuns runs = strided_runs({{}, {}, 5}, 8);
  EXPECT_EQ(runs.count, 1U);
  EXPECT_EQ(runs.nbytes, 8U);
  EXPECT_EQ(runs.offset, 40U);
}

TEST(StridedRuns, RowsThatLieTogetherAreOneRun) {
  const StridedRuns runs = strided_runs({{2, 4}, {4, 1}, 8}, 2);
  EXPECT_EQ(runs.count, 1U);
  EXPECT_EQ(runs.nbytes, 16U);
  EXPECT_EQ(runs.offset, 16U);
}

TEST(StridedRuns, PartsOfRowsAreARunEach) {
  const StridedRuns runs = strided_runs({{3, 2}, {5, 1}, 1}, 4);
  EXPECT_EQ(runs.count, 3U);
  EXPECT_EQ(runs.nbytes, 8U);
  EXPECT_EQ(runs.sizes, Ints{3});
  EXPECT_EQ(runs.strides, Ints{20});
}

TEST(StridedRuns, DimensionsOfOneElementMayHaveAnyStride) {
  EXPECT_EQ(strided_runs({{1, 6, 1}, {99, 1, 77}, 0}, 1).count, 1U);
}

TEST(StridedRuns, NothingHasNoRuns) {
  EXPECT_EQ(strided_runs({{0, 3}, {3, 1}, 0}, 4).count, 0U);
  EXPECT_EQ(strided_runs({{3, 0}, {3, 1}, 0}, 4).count, 0U);
  EXPECT_EQ(strided_runs({{3, 0, 2}, {9, 3, 1}, 0}, 4).count, 0U);
}

TEST(StridedRuns, BringEveryElementInOrder) {
  const std::string tensor = io::pattern(2 * 120);
  expect_elements(tensor, {{120}, {1}, 0}, 2);
  expect_elements(tensor, {{40}, {3}, 1}, 2);
  expect_elements(tensor, {{4, 5, 6}, {30, 6, 1}, 0}, 2);
  expect_elements(tensor, {{4, 2, 6}, {30, 12, 1}, 6}, 2);
  expect_elements(tensor, {{2, 5, 2}, {60, 6, 3}, 0}, 2);
  expect_elements(tensor, {{6, 5, 4}, {1, 6, 30}, 0}, 2);  // transposed
  expect_elements(tensor, {{3, 7}, {0, 1}, 2}, 2);         // expanded
  expect_elements(tensor, {{0, 7}, {7, 1}, 0}, 2);
}

TEST(StridedRuns, OfAFileAreReadAcrossWideGapsAndWindows) {
  const std::string tensor = io::pattern(3 << 20);
  expect_elements(tensor, {{300, 7}, {10000, 1}, 3}, 1);  // each gap is more than a page
  expect_elements(tensor, {{3000, 5}, {1000, 1}, 0}, 1);  // near one another, more than a window in all
  expect_elements(tensor, {{2, 100}, {2 << 20, 1}, 0}, 1);
}

TEST(StridedRuns, LargeViewsAreCopiedByThreadsAlike) {
  std::string tensor(24 << 20, '\0');
  for (size_t i = 0; i < tensor.size(); ++i) {
    tensor[i] = static_cast<char>(i * 2654435761U >> 24);
  }
  const int64_t rows = 3 << 10;
  const int64_t columns = static_cast<int64_t>(tensor.size()) / 4 / rows;
  expect_elements(tensor, {{rows, columns - 1000}, {columns, 1}, 999}, 4);
  expect_elements(tensor, {{3, rows / 3, columns / 2}, {rows / 3 * columns, columns, 2}, 1}, 4);
}

}  // namespace
}  // namespace torch_safetensors::tensors
