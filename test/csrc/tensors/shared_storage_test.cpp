#include "tensors/shared_storage.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <vector>

namespace torch_safetensors::tensors {
namespace {

at::Tensor range(int64_t size) { return at::arange(size, at::kFloat); }

DroppedNames dropped(const std::vector<NamedTensor>& tensors) { return find_dropped_names(tensors); }

TEST(SharedStorage, TensorsOfTheirOwnAreKept) {
  EXPECT_EQ(dropped({}), DroppedNames());
  EXPECT_EQ(dropped({{"a", range(4)}, {"b", range(4)}}), DroppedNames());
}

TEST(SharedStorage, OfATieTheSmallestNameIsKept) {
  const at::Tensor tie = range(4);
  EXPECT_EQ(dropped({{"c", tie}, {"a", tie}, {"b", tie}}), (DroppedNames{{"b", "a"}, {"c", "a"}}));
}

TEST(SharedStorage, AWholeTensorStandsForItsViews) {
  const at::Tensor base = range(12);
  EXPECT_EQ(dropped({{"a", base.slice(0, 2, 5)}, {"z", base}, {"y", base.view({3, 4})}}),
            (DroppedNames{{"a", "y"}, {"z", "y"}}));
  EXPECT_EQ(dropped({{"f", base}, {"i", base.view(at::kInt)}}), (DroppedNames{{"i", "f"}}));
}

TEST(SharedStorage, WhatTheReferenceCannotSaveIsKeptInFull) {
  const at::Tensor base = range(64);
  EXPECT_EQ(dropped({{"a", base.slice(0, 1)}}), DroppedNames());
  EXPECT_EQ(dropped({{"a", base.slice(0, 0, 32)}, {"b", base.slice(0, 32)}}), DroppedNames());
  EXPECT_EQ(dropped({{"a", base.slice(0, 0, 40)}, {"b", base.slice(0, 20)}}), DroppedNames());
  EXPECT_EQ(dropped({{"a", base}, {"b", base.slice(0, 0, 0)}}), DroppedNames());
  EXPECT_EQ(dropped({{"a", base.view({8, 8})}, {"b", base.view({8, 8}).t()}}), DroppedNames());
  // The last view lies in the full tensor, but not in the view before it.
  EXPECT_EQ(dropped({{"full", base}, {"v1", base.slice(0, 16, 32)}, {"v2", base.slice(0, 32, 48)}}),
            DroppedNames());
}

TEST(SharedStorage, ThereIdenticalTensorsAreStillOne) {
  const at::Tensor base = range(64);
  const at::Tensor columns = base.view({8, 8}).slice(1, 0, 4);
  EXPECT_EQ(dropped({{"b", columns}, {"a", columns}, {"c", base.slice(0, 60)}}), (DroppedNames{{"b", "a"}}));
}

TEST(SharedStorage, AnExpandedTensorIsNotTakenForTheWholeOfItsStorage) {
  const at::Tensor base = range(4);
  const at::Tensor expanded = base.slice(0, 0, 1).expand({4});
  EXPECT_EQ(dropped({{"a", expanded}, {"b", base}}), DroppedNames());
  EXPECT_EQ(dropped({{"a", base}, {"b", expanded}}), DroppedNames());
  EXPECT_EQ(dropped({{"a", base}, {"b", expanded}, {"c", base}}), (DroppedNames{{"c", "a"}}));
  // Of another shape than the kept one, it cannot be mistaken for that.
  EXPECT_EQ(dropped({{"a", expanded}, {"b", base.view({2, 2})}}), (DroppedNames{{"a", "b"}}));
  // Strides of dimensions of size 1 mean nothing.
  EXPECT_EQ(dropped({{"a", base.view({1, 4})}, {"b", base.as_strided({1, 4}, {9, 1})}}),
            (DroppedNames{{"b", "a"}}));
}

TEST(SharedStorage, ALazyViewIsNotTheTensorItIsAViewOf) {
  const at::Tensor base = at::ones({4}, at::kComplexFloat);
  EXPECT_EQ(dropped({{"a", base.conj()}, {"b", base}}), DroppedNames());
  EXPECT_EQ(dropped({{"a", base.conj()}, {"b", base.conj()}}), (DroppedNames{{"b", "a"}}));
}

TEST(SharedStorage, TensorsWithoutMemoryShareNone) {
  const at::Tensor empty = at::empty({0, 3});
  const at::Tensor meta = at::empty({3}, at::TensorOptions().device(at::kMeta));
  EXPECT_EQ(dropped({{"a", empty}, {"b", empty}, {"c", meta}, {"d", meta}}), DroppedNames());
}

}  // namespace
}  // namespace torch_safetensors::tensors
