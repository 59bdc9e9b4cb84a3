#include "io/retry.h"

#include <gtest/gtest.h>

namespace torch_safetensors::io {
namespace {

TEST(Retry, CallsAgainWhenInterrupted) {
  int calls = 0;
  const int result = retry([&] {
    errno = EINTR;
    return ++calls < 3 ? -1 : 7;
  });
  EXPECT_EQ(result, 7);
  EXPECT_EQ(calls, 3);
}

TEST(Retry, LeavesOtherErrorsToTheCaller) {
  int calls = 0;
  const int result = retry([&] {
    ++calls;
    errno = EIO;
    return -1;
  });
  EXPECT_EQ(result, -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace torch_safetensors::io
