#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/vfs.h>
#else
#include <sys/mount.h>
#include <sys/param.h>
#endif

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "io/os_error.h"

namespace torch_safetensors::io {
namespace {

int open_for_reading(const std::string& path) {
  int descriptor;
  do {
    // Not blocking: opening a FIFO would wait for a writer.
    descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) {
    throw_os_error(errno, path);
  }
  return descriptor;
}

#if defined(__linux__)
/// Magic numbers of statfs(2) that have no page cache of this machine's disks behind them.
constexpr std::array<uint32_t, 13> kRemoteFileSystems{
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF534D42,  // CIFS
    0xFE534D42,  // SMB2
    0x65735546,  // FUSE: mount-s3, gcsfuse, sshfs, HDFS, virtiofs
    0x01021997,  // 9P
    0x00C36400,  // Ceph
    0x0BD00BD0,  // Lustre
    0x47504653,  // GPFS
    0x19830326,  // BeeGFS
    0x5346414F,  // OpenAFS
    0x6B414653,  // kAFS
    0x73757245,  // Coda
};
#endif

}  // namespace

File::File(std::string path) : path_(std::move(path)) {
  if (path_.find('\0') != path_.npos) {
    throw_os_error(EINVAL, "embedded null byte", path_);
  }
  descriptor_ = open_for_reading(path_);
  struct stat status;
  const int error = ::fstat(descriptor_, &status) != 0 ? errno : 0;
  if (error == 0 && S_ISREG(status.st_mode)) {
    size_ = static_cast<uint64_t>(status.st_size);
    return;
  }
  ::close(std::exchange(descriptor_, -1));
  if (error != 0) {
    throw_os_error(error, path_);
  }
  if (S_ISDIR(status.st_mode)) {
    throw_os_error(EISDIR, path_);
  }
  throw_os_error(EINVAL, "Not a regular file", path_);
}

File::~File() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

bool File::is_remote() const {
  struct statfs status;
  if (::fstatfs(descriptor_, &status) != 0) {
    return true;  // Nothing is known of it: the backend that works everywhere.
  }
#if defined(__linux__)
  const auto magic = static_cast<uint32_t>(status.f_type);
  return std::find(kRemoteFileSystems.begin(), kRemoteFileSystems.end(), magic) != kRemoteFileSystems.end();
#else
  return (status.f_flags & MNT_LOCAL) == 0;
#endif
}

void File::read_at(uint64_t offset, std::span<std::byte> into) const {
  const uint64_t end = offset + into.size();
  while (!into.empty()) {
    const ssize_t count = ::pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      throw_os_error(errno, path_);
    }
    if (count == 0) {
      throw_os_error(EIO,
                     "file ended at byte " + std::to_string(offset) + " while reading up to byte " +
                         std::to_string(end) + ": it was truncated after it was opened",
                     path_);
    }
    into = into.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
}

}  // namespace torch_safetensors::io
