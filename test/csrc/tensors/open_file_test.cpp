#include "tensors/open_file.h"

#include <ATen/Functions.h>

#include <cstring>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::tensors {
namespace {

using namespace std::string_literals;

class OpenFileTest : public testing::TestWithParam<const char*> {
 protected:
  OpenFile open(std::string_view header, std::string_view data) {
    return OpenFile(write_safetensors(path_, header, data), GetParam());
  }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "m";
};

constexpr auto kTwo =
    R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"I32","shape":[1,2],"data_offsets":[3,11]}})";
const std::string kTwoData = "abc" + "\1\0\0\0\2\1\0\0"s;

TEST_P(OpenFileTest, ReadsTensorsWithAStorageEach) {
  const OpenFile file = open(kTwo, kTwoData);
  const at::Tensor a = file.read(file.entry("a"), at::kCPU);
  const at::Tensor b = file.read(file.entry("b"), at::kCPU);
  EXPECT_TRUE(at::equal(a, at::tensor({'a', 'b', 'c'}, at::kByte)));
  EXPECT_TRUE(at::equal(b, at::tensor({1, 258}, at::kInt).view({1, 2})));
  for (const at::Tensor& tensor : {a, b}) {
    EXPECT_EQ(tensor.storage().nbytes(), tensor.nbytes());
    EXPECT_FALSE(tensor.storage().resizable());
    EXPECT_EQ(tensor.storage_offset(), 0);
  }
}

TEST_P(OpenFileTest, DataAtAnOddAddressIsAligned) {
  for (size_t pad = 0; pad < 8; ++pad) {
    const OpenFile file = open(std::string(kTwo) + std::string(pad, ' '), kTwoData);
    const at::Tensor b = file.read(file.entry("b"), at::kCPU);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.const_data_ptr()) % 4, 0U);
    EXPECT_EQ(b[0][1].item<int>(), 258);
  }
}

TEST_P(OpenFileTest, TensorsOutliveItAndWritesStayOutOfTheFile) {
  at::Tensor a;
  {
    const OpenFile file = open(kTwo, kTwoData);
    a = file.read(file.entry("a"), at::kCPU);
  }
  const std::string before = io::read_file(path_);
  a.fill_(7);
  EXPECT_EQ(a.sum().item<int64_t>(), 21);
  EXPECT_EQ(io::read_file(path_), before);
}

TEST_P(OpenFileTest, NoTwoTensorsShareMemory) {
  // Above and below what is mapped rather than copied.
  for (const size_t size : {size_t{4096}, size_t{1} << 21}) {
    const std::string sizes = std::to_string(size);
    const std::string half = std::to_string(size / 2);
    const std::string data = io::pattern(size);
    const OpenFile file =
        open(R"({"a":{"dtype":"U8","shape":[2,)" + half + R"(],"data_offsets":[0,)" + sizes + "]}}", data);
    const format::TensorEntry& entry = file.entry("a");
    const auto columns = static_cast<int64_t>(size / 2);
    const StridedView rows{{2, columns}, {columns, 1}, 0}, row{{columns}, {1}, columns};
    const StridedView gaps{{2, columns / 2}, {columns, 2}, 1};
    const format::TensorEntry* const twice[] = {&entry, &entry};
    std::vector<at::Tensor> tensors = file.read(twice, at::kCPU);
    tensors.push_back(file.read(entry, at::kCPU));
    const at::Tensor whole = tensors[0].clone();
    const auto expect_all = [&](const StridedView& view, const at::Tensor& expected) {
      for (int i = 0; i < 2; ++i) {
        tensors.push_back(file.read_view(entry, view, at::kCPU));
        ASSERT_TRUE(at::equal(tensors.back(), expected));
        tensors.back().fill_(1);
      }
    };
    EXPECT_EQ(std::memcmp(whole.const_data_ptr(), data.data(), size), 0);
    for (const at::Tensor& tensor : tensors) {
      ASSERT_TRUE(at::equal(tensor, whole));
      tensor.fill_(7);
    }
    expect_all(rows, whole);
    expect_all(row, whole[1]);
    expect_all(gaps, whole.slice(1, 1, columns, 2));
    EXPECT_TRUE(at::equal(file.read(entry, at::kCPU), whole));
    EXPECT_TRUE(at::equal(tensors[0], at::full_like(whole, 7)));
  }
}

TEST_P(OpenFileTest, OnMetaThereIsNoData) {
  const OpenFile file = open(kTwo, kTwoData);
  const at::Tensor b = file.read(file.entry("b"), at::kMeta);
  EXPECT_TRUE(b.is_meta());
  EXPECT_EQ(b.sizes(), (at::IntArrayRef{1, 2}));
  EXPECT_EQ(b.scalar_type(), at::kInt);
}

TEST_P(OpenFileTest, ReadsIntoMemoryOfTheCaller) {
  const OpenFile file = open(kTwo, kTwoData);
  std::string a(3, '?'), b(8, '?');
  const format::TensorEntry* const entries[] = {&file.entry("b"), &file.entry("a")};
  const std::span<std::byte> destinations[] = {io::writable(b), io::writable(a)};
  file.read_into(entries, destinations);
  EXPECT_EQ(a + b, kTwoData);
}

TEST_P(OpenFileTest, ReadsAView) {
  const std::string data = io::pattern(24);
  const OpenFile file = open(R"({"a":{"dtype":"I16","shape":[3,4],"data_offsets":[0,24]}})", data);
  const format::TensorEntry& entry = file.entry("a");
  const at::Tensor whole = file.read(entry, at::kCPU);
  EXPECT_TRUE(at::equal(file.read_view(entry, {{3, 2}, {4, 2}, 1}, at::kCPU), whole.slice(1, 1, 4, 2)));
  EXPECT_TRUE(at::equal(file.read_view(entry, {{4}, {1}, 4}, at::kCPU), whole[1]));
  EXPECT_EQ(file.read_view(entry, {{0, 4}, {4, 1}, 0}, at::kCPU).sizes(), (at::IntArrayRef{0, 4}));
  EXPECT_TRUE(file.read_view(entry, {{2}, {1}, 0}, at::kMeta).is_meta());
}

TEST_P(OpenFileTest, F4CountsTwoElementsToTorchsOne) {
  const OpenFile file = open(R"({"a":{"dtype":"F4","shape":[1,4],"data_offsets":[0,2]}})", "ab");
  const at::Tensor a = file.read(file.entry("a"), at::kCPU);
  EXPECT_EQ(a.scalar_type(), at::kFloat4_e2m1fn_x2);
  EXPECT_EQ(a.sizes(), (at::IntArrayRef{1, 2}));
}

TEST_P(OpenFileTest, WhatTorchCannotHoldSaysWhy) {
  const OpenFile file = open(
      R"({"six":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]},"odd":{"dtype":"F4","shape":[2,1],"data_offsets":[3,4]},"u":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}})",
      "abcde");
  expect_error<SafetensorError>(path_ + ": tensor 'six': torch cannot hold F6_E2M3 [4]: it has no such dtype",
                                [&] { file.read(file.entry("six"), at::kCPU); });
  expect_error<SafetensorError>(
      "tensor 'odd': torch cannot hold F4 [2, 1]: the last dimension must be a multiple of 2",
      [&] { file.read(file.entry("odd"), at::kCPU); });
  EXPECT_EQ(file.read(file.entry("u"), at::kCPU).item<int>(), 'e');
}

TEST_P(OpenFileTest, ErrorsBeginWithThePath) {
  const OpenFile file = open(kTwo, kTwoData);
  expect_error<SafetensorError>(path_ + ": tensor 'zz': not in this file, which holds 2 tensors",
                                [&] { file.entry("zz"); });
  expect_error<SafetensorError>(path_ + ": ", [&] { open(kTwo, kTwoData + "x"); });
  expect_error<SafetensorError>(path_ + ": ", [&] { open("[]", ""); });
  expect_error<OsError>("[Errno 2]", [&] { OpenFile(directory_ / "no", GetParam()); });
}

TEST_P(OpenFileTest, AHeaderThatIsLongerThanTheFirstRead) {
  const std::string name(40'000, 'n');
  const OpenFile file = open("{\"" + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "z");
  EXPECT_EQ(file.read(file.entry(name), at::kCPU).item<int>(), 'z');
}

TEST_P(OpenFileTest, AFileWithoutTensors) {
  EXPECT_TRUE(open("{}", "").header().tensors().empty());
  const OpenFile file = open(R"({"e":{"dtype":"F32","shape":[0,2],"data_offsets":[0,0]}})", "");
  EXPECT_EQ(file.read(file.entry("e"), at::kCPU).sizes(), (at::IntArrayRef{0, 2}));
}

INSTANTIATE_TEST_SUITE_P(Backends, OpenFileTest, testing::Values("auto", "mmap", "pread"),
                         [](const auto& backend) { return std::string(backend.param); });

TEST(OpenFile, RefusesAnotherBackend) {
  const io::TestDirectory directory;
  const std::string path = write_safetensors(directory / "m", "{}", "");
  expect_error<c10::ValueError>("backend 'disk' is not one of 'auto', 'mmap', 'pread'",
                                [&] { OpenFile(path, "disk"); });
}

TEST(OpenFile, WhatWasReadByPreadNoLongerDependsOnTheFile) {
  const io::TestDirectory directory;
  const std::string path = write_safetensors(directory / "m", kTwo, kTwoData);
  const OpenFile file(path, "pread");
  const at::Tensor a = file.read(file.entry("a"), at::kCPU);
  std::filesystem::resize_file(path, 1);
  EXPECT_EQ(a.sum().item<int64_t>(), 'a' + 'b' + 'c');
  expect_error<OsError>("[Errno 5]", [&] { file.read(file.entry("a"), at::kCPU); });
}

}  // namespace
}  // namespace torch_safetensors::tensors
