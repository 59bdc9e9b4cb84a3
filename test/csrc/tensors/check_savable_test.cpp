#include "tensors/check_savable.h"

#include <ATen/Functions.h>
#include <ATen/native/Resize.h>

#include <vector>

#include "tensors/safetensors_file.h"

namespace torch_safetensors::tensors {
namespace {

void check(const std::vector<NamedTensor>& tensors, Overlap overlap = Overlap::kRefused) {
  check_savable(tensors, overlap);
}

TEST(CheckSavable, DenseTensorsPass) {
  const at::Tensor base = at::ones({4, 3});
  check({});
  check({{"a", base[0]}, {"b", base[1]}, {"c", at::ones({})}, {"d", at::empty({0, 2})}});
  check({{"a", at::ones({5, 1}).t()}});  // the stride of a single element does not matter
  check({{"a", at::ones({2}, at::kComplexFloat).conj()}});
}

TEST(CheckSavable, NamesTheTensorAndTheWayOut) {
  expect_error<c10::ValueError>("tensor 'w': is undefined", [] { check({{"w", at::Tensor()}}); });
  expect_error<c10::ValueError>("tensor 'w': is Sparse, and the format holds dense tensors; call .to_dense()",
                                [] { check({{"w", at::ones({2, 2}).to_sparse()}}); });
  expect_error<c10::ValueError>(
      "tensor 'w': is not contiguous (shape [3, 2], strides [1, 3]); call .contiguous()",
      [] { check({{"w", at::ones({2, 3}).t()}}); });
  expect_error<c10::ValueError>("tensor 'w': is not contiguous", [] {
    check({{"w", at::ones({2, 1}).expand({2, 3})}}, Overlap::kWrittenTwice);
  });
  expect_error<c10::NotImplementedError>("tensor 'w': is on the meta device and has no data", [] {
    check({{"w", at::empty({2}, at::TensorOptions().device(at::kMeta))}});
  });
}

TEST(CheckSavable, MemoryThatIsNotThere) {
  const auto absent = [](size_t nbytes) {
    const at::Tensor tensor = at::ones({10, 100});
    at::native::resize_bytes_cpu(tensor.storage().unsafeGetStorageImpl(), nbytes);
    return tensor;
  };
  expect_error<c10::ValueError>(
      "tensor 'w' needs 4000 bytes of its storage, which has 3999 (storage offset 0, shape [10, 100], "
      "strides [100, 1])",
      [&] { check({{"w", absent(3999)}}); });
  // Before torch packs it, and before it is found not to be contiguous.
  const at::Tensor base = at::ones({10, 100});
  const std::vector<at::Tensor> views{base, base.t(), base.expand({2, 10, 100}), base[9]};
  const at::Tensor head = base[0].slice(0, 0, 2), none = base.slice(0, 5, 5);
  at::native::resize_bytes_cpu(base.storage().unsafeGetStorageImpl(), 8);
  for (const at::Tensor& tensor : views) {
    expect_error<c10::ValueError>("tensor 'w' needs ", [&] { check({{"w", tensor}}); });
    expect_error<c10::ValueError>("tensor 'w' needs ", [&] { packed({"w", tensor}); });
    expect_error<c10::ValueError>("tensor 'w' needs ", [&] {
      const NamedTensor named{"w", tensor};
      check_parts_savable({&named, 1}, Overlap::kWrittenTwice);
    });
  }
  check({{"w", head}, {"v", none}});
}

TEST(CheckSavable, DtypesTheFormatDoesNotHave) {
  expect_error<c10::ValueError>(
      "tensor 'w': the format has no dtype for ComplexDouble; save torch.view_as_real",
      [] { check({{"w", at::ones({2}, at::kComplexDouble)}}); });
  expect_error<c10::ValueError>("tensor 'w': is quantized (QInt8)", [] {
    check_dtype({"w", at::quantize_per_tensor(at::ones({2}), 1.0, 0, at::kQInt8)});
  });
}

TEST(CheckSavable, OverlapIsRefusedUnlessWrittenTwice) {
  const at::Tensor base = at::ones({8});
  const std::vector<NamedTensor> tensors{{"b", base.slice(0, 4)}, {"a", base.slice(0, 0, 5)}};
  expect_error<c10::Error>("tensor 'b': Some tensors share memory: it overlaps tensor 'a'; use save_model",
                           [&] { check(tensors); });
  check(tensors, Overlap::kWrittenTwice);
}

TEST(CheckSavable, OverlapIsFoundBehindAShorterNeighbour) {
  const at::Tensor base = at::ones({8});
  expect_error<c10::Error>("tensor 'c': Some tensors share memory: it overlaps tensor 'a'", [&] {
    check({{"a", base}, {"b", base.slice(0, 1, 1)}, {"c", base.slice(0, 6)}});
  });
}

TEST(CheckSavable, MemoryFromTwoStoragesMayOverlap) {
  const at::Tensor base = at::ones({8});
  const at::Tensor other = at::from_blob(base.data_ptr<float>() + 4, {4});
  expect_error<c10::Error>("share memory", [&] { check({{"a", base}, {"b", other}}); });
}

}  // namespace
}  // namespace torch_safetensors::tensors
