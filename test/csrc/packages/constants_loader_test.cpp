#include "packages/constants_loader.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "tensors/fake_device.h"

namespace torch_safetensors::packages {
namespace {

TEST(LentConstants, GivesStoragesBack) {
  const at::Tensor lent = at::ones({3});
  {
    const LentConstants constants({{"c", lent}});
  }
  EXPECT_EQ(lent.storage().nbytes(), 0U);
  EXPECT_EQ(lent.storage().data(), nullptr);
}

/// As a GPU's after an error in what was launched: whoever waits for it gets an exception, which must not
/// leave a destructor. The made-up device cannot be waited for.
TEST(LentConstants, GivesStoragesBackOfADeviceThatHasStopped) {
  fake::reset();
  const size_t before = fake::counts().device_bytes;
  const at::Tensor lent = at::empty({3}, at::TensorOptions().device(fake::kDevice));
  {
    const LentConstants constants({{"c", lent}, {"d", at::ones({3})}});
  }
  EXPECT_EQ(lent.storage().nbytes(), 0U);
  EXPECT_EQ(fake::counts().device_bytes, before);
  fake::reset();
}

}  // namespace
}  // namespace torch_safetensors::packages
