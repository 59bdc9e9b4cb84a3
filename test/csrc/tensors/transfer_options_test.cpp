#include "tensors/transfer_options.h"

#include <cstdlib>

#include "tensors/fake_device.h"
#include "tensors/safetensors_file.h"

namespace torch_safetensors::tensors {
namespace {

constexpr const char* kVariables[] = {"TORCH_SAFETENSORS_THREADS", "TORCH_SAFETENSORS_RING_SIZE",
                                      "TORCH_SAFETENSORS_SHARE_BELOW"};

struct TransferOptionsTest : testing::Test {
  ~TransferOptionsTest() override {
    for (const char* const name : kVariables) {
      ::unsetenv(name);
    }
  }
};

TEST_F(TransferOptionsTest, HasDefaults) {
  const TransferSettings settings = transfer_settings(at::kCPU, {});
  EXPECT_GE(settings.threads, 1);
  EXPECT_LE(settings.threads, 8);
  EXPECT_EQ(settings.ring_capacity, size_t{64} << 20);
  EXPECT_EQ(settings.shared_below, size_t{256} << 10);
}

TEST_F(TransferOptionsTest, TakesTheEnvironmentBeforeDefaultsAndKeywordsBeforeBoth) {
  for (const char* const name : kVariables) {
    ::setenv(name, "12345", 1);
  }
  TransferSettings settings = transfer_settings(fake::kDevice, {});
  EXPECT_EQ(settings.threads, 12345);
  EXPECT_EQ(settings.ring_capacity, 12345);
  EXPECT_EQ(settings.shared_below, 12345);
  settings = transfer_settings(fake::kDevice, {3, 4});
  EXPECT_EQ(settings.threads, 3);
  EXPECT_EQ(settings.ring_capacity, 4);
  ::setenv("TORCH_SAFETENSORS_SHARE_BELOW", "0", 1);
  EXPECT_EQ(transfer_settings(at::kCUDA, {}).shared_below, 0);
}

TEST_F(TransferOptionsTest, KnowsWhetherSomebodyAskedForThreads) {
  EXPECT_EQ(asked_threads({}), std::nullopt);
  EXPECT_EQ(reader_threads(std::nullopt, 8), 8);
  ::setenv("TORCH_SAFETENSORS_THREADS", "3", 1);
  EXPECT_EQ(asked_threads({}), 3);
  EXPECT_EQ(asked_threads({.threads = 2}), 2);
  EXPECT_EQ(reader_threads(std::nullopt, 8), 3);
}

TEST_F(TransferOptionsTest, SharesMemoryOnlyWhereItIsPlain) {
  EXPECT_GT(transfer_settings(at::kCUDA, {}).shared_below, 0);
  EXPECT_EQ(transfer_settings(at::kMPS, {}).shared_below, 0);
}

TEST_F(TransferOptionsTest, RefusesWhatIsNoNumber) {
  for (const char* const name : kVariables) {
    for (const char* const text : {"", "x", "-1", "12MiB", "99999999999999999999999"}) {
      ::setenv(name, text, 1);
      expect_error<c10::ValueError>(std::string(name) + ": expected a number from ",
                                    [] { transfer_settings(at::kCPU, {}); });
    }
    ::unsetenv(name);
  }
  ::setenv("TORCH_SAFETENSORS_THREADS", "0", 1);
  expect_error<c10::ValueError>("TORCH_SAFETENSORS_THREADS: expected a number from 1, not '0'",
                                [] { transfer_settings(at::kCPU, {}); });
  expect_error<c10::ValueError>("threads must be positive, not 0",
                                [] { transfer_settings(at::kCPU, {0, std::nullopt}); });
  expect_error<c10::ValueError>("ring_size must be positive, not -1",
                                [] { transfer_settings(at::kCPU, {1, -1}); });
}

}  // namespace
}  // namespace torch_safetensors::tensors
