#include "io/remote_file_system.h"

#include <gtest/gtest.h>

#include "io/faults.h"
#include "io/file.h"
#include "io/test_directory.h"

#if defined(__linux__)  // elsewhere the system itself knows which are local

namespace torch_safetensors::io {
namespace {

bool is_remote_on(long magic) {
  const FaultsGuard guard;
  const TestDirectory directory;
  const File file(write_file(directory / "f", ""));
  faults.fstatfs = magic;
  return file.is_remote();
}

TEST(IsRemote, KnowsNetworkAndFuseFileSystems) {
  EXPECT_TRUE(is_remote_on(0x6969));      // NFS
  EXPECT_TRUE(is_remote_on(0xFF534D42));  // CIFS
  EXPECT_TRUE(is_remote_on(0xFE534D42));  // SMB2
  EXPECT_TRUE(is_remote_on(0x65735546));  // FUSE
  EXPECT_TRUE(is_remote_on(0x01021997));  // 9P
  EXPECT_TRUE(is_remote_on(0x0BD00BD0));  // Lustre
}

TEST(IsRemote, KnowsANumberWhoseSignWasExtended) { EXPECT_TRUE(is_remote_on(static_cast<int>(0xFF534D42))); }

TEST(IsRemote, TakesLocalDisksForLocal) {
  EXPECT_FALSE(is_remote_on(0xEF53));      // ext4
  EXPECT_FALSE(is_remote_on(0x01021994));  // tmpfs
  EXPECT_FALSE(is_remote_on(0x794C7630));  // overlay, as in containers
}

TEST(IsRemote, TakesTheUnknownForRemote) { EXPECT_TRUE(is_remote_on(0)); }

TEST(IsRemote, AsksTheSystem) {
  const std::string path = "/proc/self/status";
  EXPECT_FALSE(File(path).is_remote());
}

}  // namespace
}  // namespace torch_safetensors::io

#endif
