#include "tensors/write_into.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

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

}  // namespace
}  // namespace torch_safetensors::tensors
