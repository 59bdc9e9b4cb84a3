#include "io/remote_file_system.h"

#if defined(__linux__)
#include <sys/vfs.h>
#else
#include <sys/mount.h>
#include <sys/param.h>
#endif

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "io/retry.h"

namespace torch_safetensors::io {
namespace {

#if defined(__linux__)

struct FileSystemMagic {
  uint32_t number;
  const char* name;
};

// From linux/magic.h, the file systems' own sources and coreutils' stat.c: no one header has them all.
constexpr FileSystemMagic kRemote[] = {
    {0x00006969, "NFS"},    {0x0000517B, "SMB"},      {0xFF534D42, "CIFS"},      {0xFE534D42, "SMB2"},
    {0x65735546, "FUSE"},   {0x01021997, "9P"},       {0x00C36400, "Ceph"},      {0x0BD00BD0, "Lustre"},
    {0x47504653, "GPFS"},   {0x19830326, "BeeGFS"},   {0x5346414F, "AFS"},       {0x6B414653, "kAFS"},
    {0x73757245, "Coda"},   {0x01161970, "GFS2"},     {0x7461636F, "OCFS2"},     {0x20030528, "OrangeFS"},
    {0xAAD7AAEA, "PanFS"},  {0xBEEFDEAD, "StorNext"}, {0x61636673, "ACFS"},      {0x013111A8, "IBRIX"},
    {0xBACBACBC, "VMware"}, {0x786F4256, "VBox"},     {0x7C7C6673, "Parallels"}, {0x0000564C, "NCP"},
};

bool is_remote(const struct statfs& status) {
  // f_type is signed and of another width from one architecture to the next; the numbers have 32 bits.
  const auto type = static_cast<uint32_t>(status.f_type);
  return std::any_of(std::begin(kRemote), std::end(kRemote),
                     [type](const FileSystemMagic& magic) { return magic.number == type; });
}

#else

bool is_remote(const struct statfs& status) { return (status.f_flags & MNT_LOCAL) == 0; }

#endif

}  // namespace

bool is_on_remote_file_system(int descriptor) {
  struct statfs status;
  // FUSE passes statfs on to its server, which need not know it: that is why an error means remote.
  return retry([&] { return ::fstatfs(descriptor, &status); }) != 0 || is_remote(status);
}

bool is_on_remote_file_system(const std::string& directory) {
  struct statfs status;
  const std::string path = directory.empty() ? "." : directory;
  return retry([&] { return ::statfs(path.c_str(), &status); }) != 0 || is_remote(status);
}

}  // namespace torch_safetensors::io
