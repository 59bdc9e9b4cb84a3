#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "format/header_content.h"

namespace torch_safetensors::format {

/// Fails the test where the two do not say the same of everything.
inline void expect_same(const HeaderContent& a, const HeaderContent& b) {
  EXPECT_TRUE(std::ranges::equal(a.tensors, b.tensors, [](const TensorEntry& x, const TensorEntry& y) {
    return x.name == y.name && x.dtype == y.dtype && std::ranges::equal(x.shape, y.shape) &&
           x.begin == y.begin && x.end == y.end;
  }));
  EXPECT_TRUE(std::ranges::equal(a.dims.values(), b.dims.values()));
  EXPECT_EQ(a.metadata, b.metadata);
}

}  // namespace torch_safetensors::format
