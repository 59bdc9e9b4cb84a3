#include "io/descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace torch_safetensors::io {
namespace {

bool is_open(int descriptor) { return ::fcntl(descriptor, F_GETFD) != -1; }

int open_null() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

TEST(Descriptor, ClosesWhatItOwns) {
  int number = -1;
  {
    const Descriptor descriptor(open_null());
    EXPECT_TRUE(descriptor);
    number = descriptor.get();
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(Descriptor, OwnsNoneAfterAFailedOpen) {
  Descriptor descriptor(-1);
  EXPECT_FALSE(descriptor);
  EXPECT_EQ(descriptor.close(), 0);
}

TEST(Descriptor, Moves) {
  Descriptor from(open_null());
  const int number = from.get();
  Descriptor to(std::move(from));
  EXPECT_EQ(to.get(), number);
  Descriptor assigned;
  assigned = std::move(to);
  EXPECT_EQ(assigned.get(), number);
  EXPECT_TRUE(is_open(number));
}

TEST(Descriptor, ReportsTheErrorOfClose) {
  Descriptor descriptor(open_null());
  ::close(descriptor.get());
  EXPECT_EQ(descriptor.close(), EBADF);
  EXPECT_FALSE(descriptor);
}

TEST(Descriptor, LeavesErrnoAlone) {
  {
    const Descriptor descriptor(open_null());
    ::close(descriptor.get());
    errno = ENOENT;
  }
  EXPECT_EQ(errno, ENOENT);
}

}  // namespace
}  // namespace torch_safetensors::io
