#include "tensors/identity.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <vector>

namespace torch_safetensors::tensors {
namespace {

TEST(Identity, IsAStrictOrderOfForms) {
  const at::Tensor base = at::arange(16);
  const at::Tensor meta = at::empty({16}, at::TensorOptions().device(at::kMeta));
  const std::vector<at::Tensor> forms{base,
                                      base.slice(0, 1),
                                      base.view({4, 4}),
                                      base.view({4, 4}).t(),
                                      base.view(at::kInt),
                                      at::arange(16),
                                      meta,
                                      meta.slice(0, 1),
                                      at::empty({16}, at::TensorOptions().device(at::kMeta))};
  for (size_t i = 0; i < forms.size(); ++i) {
    const at::Tensor alias = forms[i].alias();
    EXPECT_EQ(Identity(forms[i]), Identity(alias));
    for (size_t j = 0; j < i; ++j) {
      EXPECT_NE(Identity(forms[i]), Identity(forms[j])) << i << " " << j;
      EXPECT_NE(Identity(forms[i]) < Identity(forms[j]), Identity(forms[j]) < Identity(forms[i]))
          << i << " " << j;
    }
  }
}

}  // namespace
}  // namespace torch_safetensors::tensors
