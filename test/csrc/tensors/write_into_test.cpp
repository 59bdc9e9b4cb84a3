#include "tensors/write_into.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/Resize.h>

#include <limits>

#include "tensors/safetensors_file.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors::tensors {
namespace {

at::Tensor floats(at::IntArrayRef sizes) { return at::zeros(sizes, at::kFloat); }

/// A file of a = [1, 2], b = [[3, 4], [5, 6]].
class WriteInto : public testing::Test {
 protected:
  WriteInto() {
    TensorDict tensors;
    tensors.insert("a", at::tensor({1.F, 2.F}));
    tensors.insert("b", at::tensor({3.F, 4.F, 5.F, 6.F}).view({2, 2}));
    save_file(tensors, path_);
  }

  void write(const at::Tensor& a, const at::Tensor& b) {
    const Checkpoint file(path_, "auto");
    const Target targets[] = {{&file.entry("a"), a}, {&file.entry("b"), b}};
    write_into(file, targets);
  }

  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "m";
};

TEST_F(WriteInto, FillsDenseTensorsInPlace) {
  const at::Tensor a = floats({2}), b = floats({2, 2});
  const void* memory = b.const_data_ptr();
  write(a, b);
  EXPECT_TRUE(at::equal(a, at::tensor({1.F, 2.F})));
  EXPECT_TRUE(at::equal(b, at::tensor({3.F, 4.F, 5.F, 6.F}).view({2, 2})));
  EXPECT_EQ(b.const_data_ptr(), memory);
}

TEST_F(WriteInto, WritesNothingWhereMemoryOfOneIsNotThere) {
  const at::Tensor a = floats({2}), b = floats({2, 2}), wide = at::zeros({2, 2}, at::kDouble);
  for (const at::Tensor& absent : {b, b.t(), wide}) {
    at::native::resize_bytes_cpu(absent.storage().unsafeGetStorageImpl(), 8);
    EXPECT_THROW(write(a, absent), c10::ValueError);
    expect_error<c10::ValueError>("label needs ", [&] { check_writable(absent, at::kFloat, "label"); });
    EXPECT_TRUE(at::equal(a, floats({2})));
    EXPECT_EQ(a._version(), floats({2})._version());
  }
}

TEST_F(WriteInto, CopiesWhereMemoryIsOfAnotherForm) {
  const at::Tensor a = at::zeros({2}, at::kDouble), b = floats({2, 2}).t();
  write(a, b);
  EXPECT_TRUE(at::equal(a, at::tensor({1., 2.})));
  EXPECT_TRUE(at::equal(b, at::tensor({3.F, 4.F, 5.F, 6.F}).view({2, 2})));
  const at::Tensor complex = at::zeros({2}, at::kComplexFloat);
  write(at::zeros({4}, at::kFloat).slice(0, 0, 4, 2), at::real(at::zeros({2, 2}, at::kComplexFloat)));
  write(complex.conj(), floats({2, 2})._neg_view());
  EXPECT_EQ(at::real(complex).sum().item<float>(), 3);
}

TEST_F(WriteInto, OneElementFillsAScalar) {
  TensorDict tensors;
  tensors.insert("s", at::tensor({7.F}));
  save_file(tensors, path_);
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const Checkpoint file(path_, "auto");
    const at::Tensor scalar = at::zeros({}, dtype);
    const Target targets[] = {{&file.entry("s"), scalar}};
    write_into(file, targets);
    EXPECT_EQ(scalar.item<double>(), 7);
  }
}

TEST_F(WriteInto, BumpsEachVersionOnce) {
  const at::Tensor a = floats({2}), b = at::zeros({2, 2}, at::kDouble);
  const auto a_before = a._version(), b_before = b._version();
  write(a, b);
  EXPECT_EQ(a._version(), a_before + 1);
  EXPECT_EQ(b._version(), b_before + 1);
}

TEST_F(WriteInto, OverlappingTargetsAreWrittenInOrder) {
  for (int i = 0; i < 20; ++i) {
    const at::Tensor base = floats({4});
    write(base.slice(0, 1, 3), base.view({2, 2}));
    EXPECT_TRUE(at::equal(base, at::tensor({3.F, 4.F, 5.F, 6.F})));
    const Checkpoint file(path_, "auto");
    const Target targets[] = {{&file.entry("b"), base.view({2, 2})}, {&file.entry("a"), base.slice(0, 1, 3)}};
    write_into(file, targets);
    EXPECT_TRUE(at::equal(base, at::tensor({3.F, 1.F, 2.F, 6.F})));
  }
}

TEST_F(WriteInto, LoadIntoWantsTheVeryForm) {
  const at::Tensor a = floats({2});
  torch_safetensors::load_into(path_, "a", a);
  EXPECT_EQ(a.sum().item<float>(), 3);
  expect_error<c10::ValueError>(
      "tensor 'a': the file holds Float [2] but the tensor to load into is Float [3]",
      [&] { torch_safetensors::load_into(path_, "a", floats({3})); });
  expect_error<c10::ValueError>("but the tensor to load into is Double [2]", [&] {
    torch_safetensors::load_into(path_, "a", at::zeros({2}, at::kDouble));
  });
  expect_error<c10::Error>("a leaf Variable that requires grad", [&] {
    torch_safetensors::load_into(path_, "a", floats({2}).set_requires_grad(true));
  });
  const Checkpoint file(path_, "auto");
  expect_error<c10::ValueError>("there are 2 names for 1 tensors", [&] { load_into(file, {"a", "b"}, {a}); });
}

TEST(CheckWritable, PassesWhatCopyWouldTake) {
  check_writable(floats({2}), at::kFloat, "f");
  check_writable(floats({2}), at::kHalf, "f");
  check_writable(at::zeros({2}, at::kComplexFloat), at::kFloat, "f");
  check_writable(floats({2, 2}).t(), at::kLong, "f");
  const at::NoGradGuard no_grad;
  check_writable(floats({2}).set_requires_grad(true), at::kFloat, "f");
}

TEST(CheckWritable, RefusesWithTheLabel) {
  const at::Tensor meta = at::empty({2}, at::TensorOptions().device(at::kMeta));
  expect_error<c10::ValueError>("f: is on the meta device", [&] { check_writable(meta, at::kFloat, "f"); });
  expect_error<c10::Error>("f: unsupported operation: more than one element of the written-to tensor",
                           [] { check_writable(floats({1}).expand({3}), at::kFloat, "f"); });
  expect_error<c10::ValueError>(
      "f: the file holds ComplexFloat, which would lose its imaginary part as Float",
      [] { check_writable(floats({2}), at::kComplexFloat, "f"); });
  expect_error<c10::ValueError>("f: torch cannot convert Float4_e2m1fn_x2 to Float",
                                [] { check_writable(floats({2}), at::kFloat4_e2m1fn_x2, "f"); });
  expect_error<c10::Error>("f: a leaf Variable that requires grad",
                           [] { check_writable(floats({2}).set_requires_grad(true), at::kFloat, "f"); });
}

TEST(CheckWritable, RefusesInferenceTensorsOutsideOfInferenceMode) {
  at::Tensor inference;
  {
    const c10::InferenceMode mode;
    inference = floats({2});
    check_writable(inference, at::kFloat, "f");
  }
  expect_error<c10::Error>("f: Inplace update to inference tensor outside InferenceMode",
                           [&] { check_writable(inference, at::kFloat, "f"); });
}

/// A file of one tensor, 0 to 59 in [5, 4, 3].
class LoadParts : public testing::Test {
 protected:
  LoadParts() {
    TensorDict tensors;
    tensors.insert("w", whole_);
    save_file(tensors, path_);
  }

  const at::Tensor whole_ = at::arange(60, at::kFloat).view({5, 4, 3});
  const io::TestDirectory directory_;
  const std::string path_ = directory_ / "m";
};

TEST_F(LoadParts, EveryBoxIsThatOfTheTensor) {
  const Checkpoint file(path_, "auto");
  for (int64_t rows = 0; rows <= 5; ++rows) {
    for (int64_t columns = 1; columns <= 4; ++columns) {
      const at::Tensor out = floats({rows, columns, 2});
      load_into(file, {"w"}, {out}, {{{5 - rows, 4 - columns, 1}}});
      const at::Tensor expected =
          whole_.narrow(0, 5 - rows, rows).narrow(1, 4 - columns, columns).narrow(2, 1, 2);
      EXPECT_TRUE(at::equal(out, expected)) << rows << " " << columns;
    }
  }
}

TEST_F(LoadParts, SeveralPartsOfOneTensorAtOnce) {
  const Checkpoint file(path_, "auto");
  const at::Tensor rows = floats({2, 4, 3}), column = floats({5, 1, 3});
  load_into(file, {"w", "w"}, {rows, column}, {{{3, 0, 0}, {0, 2, 0}}});
  EXPECT_TRUE(at::equal(rows, whole_.narrow(0, 3, 2)));
  EXPECT_TRUE(at::equal(column, whole_.narrow(1, 2, 1)));
}

TEST_F(LoadParts, FillsMemoryOfAnotherForm) {
  const at::Tensor out = floats({3, 4, 2}).transpose(0, 2);
  torch_safetensors::load_into(path_, "w", out, at::IntArrayRef{1, 0, 0});
  EXPECT_TRUE(at::equal(out, whole_.narrow(0, 1, 2)));
}

TEST_F(LoadParts, BumpsTheVersionOnce) {
  const at::Tensor column = floats({5, 1, 3});
  const auto before = column._version();
  torch_safetensors::load_into(path_, "w", column, at::IntArrayRef{0, 2, 0});
  EXPECT_EQ(column._version(), before + 1);
}

TEST_F(LoadParts, RefusesWhatIsNoPart) {
  const at::Tensor out = floats({3, 4, 3});
  const std::string held =
      path_ + ": tensor 'w': the file holds [5, 4, 3], of which no part of [3, 4, 3] begins at ";
  const auto load = [&](at::IntArrayRef offsets) { torch_safetensors::load_into(path_, "w", out, offsets); };
  expect_error<c10::ValueError>(held + "[3, 0, 0]", [&] { load({3, 0, 0}); });
  expect_error<c10::ValueError>(held + "[-1, 0, 0]", [&] { load({-1, 0, 0}); });
  expect_error<c10::ValueError>(held + "[0, 0]", [&] { load({0, 0}); });
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  expect_error<c10::ValueError>(held + "[9223372036854775807, 0, 0]", [&] { load({kHuge, 0, 0}); });
  const Checkpoint file(path_, "auto");
  expect_error<c10::ValueError>("there are offsets of 2 tensors for 1",
                                [&] { load_into(file, {"w"}, {out}, {{{0, 0, 0}, {0, 0, 0}}}); });
  EXPECT_EQ(out.abs().sum().item<float>(), 0);
}

TEST(LoadLargeParts, ColumnsAreReadByThreads) {
  const io::TestDirectory directory;
  const at::Tensor whole = at::arange(6 << 20, at::kFloat).view({3072, 2048});
  TensorDict tensors;
  tensors.insert("w", whole);
  save_file(tensors, directory / "m");
  const at::Tensor narrow = floats({3072, 512}), wide = floats({3072, 2047});
  const Checkpoint file(directory / "m", "auto");
  load_into(file, {"w", "w"}, {narrow, wide}, {{{0, 1024}, {0, 1}}});
  EXPECT_TRUE(at::equal(narrow, whole.narrow(1, 1024, 512)));
  EXPECT_TRUE(at::equal(wide, whole.narrow(1, 1, 2047)));
}

}  // namespace
}  // namespace torch_safetensors::tensors
