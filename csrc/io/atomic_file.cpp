#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "io/os_error.h"

namespace torch_safetensors::io {
namespace {

/// Symbolic links one after the other, as many as Linux follows.
constexpr int kMostLinks = 40;

constexpr size_t kCopyBlock = 1 << 20;

/// What POSIX calls IOV_MAX is 1024 on Linux and macOS.
constexpr size_t kMostPieces = 1024;

std::string read_link(const std::string& path, size_t size, const std::string& path_for_errors) {
  std::string link(std::max<size_t>(size + 1, 256), '\0');
  for (;;) {
    const ssize_t length = ::readlink(path.c_str(), link.data(), link.size());
    if (length < 0) {
      throw_os_error(errno, path_for_errors);
    }
    if (static_cast<size_t>(length) < link.size()) {
      link.resize(static_cast<size_t>(length));
      return link;
    }
    link.resize(2 * link.size());
  }
}

/// The path that opening `path` for writing would create or overwrite.
std::string follow_links(std::string path) {
  const std::string given = path;
  struct stat status;
  for (int i = 0; i < kMostLinks; ++i) {
    if (::lstat(path.c_str(), &status) != 0 || !S_ISLNK(status.st_mode)) {
      return path;
    }
    const std::string link = read_link(path, static_cast<size_t>(status.st_size), given);
    path = link.starts_with('/') ? link : path.substr(0, path.rfind('/') + 1) + link;
  }
  throw_os_error(ELOOP, given);
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == path.npos ? "." : path.substr(0, slash + 1);
}

/// What FUSE and object-store mounts answer to calls they do not know.
bool is_unsupported(int error) {
  return error == ENOSYS || error == EOPNOTSUPP || error == ENOTSUP || error == EPERM;
}

void flush(int descriptor, const std::string& path_for_errors) {
  while (::fsync(descriptor) != 0) {
    if (errno != EINTR) {
      throw_os_error(errno, path_for_errors);
    }
  }
}

void flush_directory(const std::string& target, const std::string& path_for_errors) {
  const Descriptor directory(::open(directory_of(target).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) {
    throw_os_error(errno, path_for_errors);
  }
  // Some file systems have nothing to flush there, and say so.
  if (::fsync(directory.number()) != 0 && errno != EINVAL && !is_unsupported(errno)) {
    throw_os_error(errno, path_for_errors);
  }
}

void write_all(int descriptor, std::span<iovec> pieces, const std::string& path_for_errors) {
  while (!pieces.empty()) {
    const auto count = static_cast<int>(std::min(pieces.size(), kMostPieces));
    ssize_t written = ::writev(descriptor, pieces.data(), count);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      throw_os_error(errno, path_for_errors);
    }
    while (!pieces.empty() && static_cast<size_t>(written) >= pieces.front().iov_len) {
      written -= static_cast<ssize_t>(pieces.front().iov_len);
      pieces = pieces.subspan(1);
    }
    if (!pieces.empty()) {
      pieces.front().iov_base = static_cast<char*>(pieces.front().iov_base) + written;
      pieces.front().iov_len -= static_cast<size_t>(written);
    }
  }
}

/// True if this process maps the file, or nobody can tell: cutting it short would kill whoever touches the mapping.
bool may_be_mapped(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) {
    return false;
  }
  // address, permissions, offset, device, inode. The device is left out: on some file systems it differs from stat's.
  std::ifstream maps("/proc/self/maps");
  if (!maps) {
    return true;
  }
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    std::string skipped;
    uint64_t inode = 0;
    if (fields >> skipped >> skipped >> skipped >> skipped >> inode && inode == status.st_ino) {
      return true;
    }
  }
  return false;
}

void copy_over(int from, const std::string& target, mode_t mode, bool durable, const std::string& path_for_errors) {
  const Descriptor to(::open(target.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!to) {
    throw_os_error(errno, path_for_errors);
  }
  std::vector<char> block(kCopyBlock);
  for (off_t offset = 0;;) {
    const ssize_t count = ::pread(from, block.data(), block.size(), offset);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      throw_os_error(errno, path_for_errors);
    }
    if (count == 0) {
      break;
    }
    iovec piece{block.data(), static_cast<size_t>(count)};
    write_all(to.number(), {&piece, 1}, path_for_errors);
    offset += count;
  }
  if (durable) {
    flush(to.number(), path_for_errors);
  }
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  if (path.find('\0') != path.npos) {
    throw_os_error(EINVAL, "embedded null byte", path);
  }
  target_ = follow_links(path);
  struct stat status;
  if (::stat(target_.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) {
      throw_os_error(EISDIR, path);
    }
    if (!S_ISREG(status.st_mode)) {
      throw_os_error(EINVAL, "Not a regular file", path);
    }
    mode_ = status.st_mode & 07777;
    keeps_mode_ = true;
  } else if (errno != ENOENT) {
    throw_os_error(errno, path);
  } else if (target_.empty() || target_.ends_with('/')) {
    throw_os_error(target_.empty() ? ENOENT : EISDIR, path);
  }
  temporary_ = create_temporary_file(target_, mode_ & 0777, path);
}

AtomicFile::~AtomicFile() {
  if (!temporary_.path.empty()) {
    ::unlink(temporary_.path.c_str());
  }
}

void AtomicFile::write(std::span<const std::span<const std::byte>> pieces) {
  std::vector<iovec> vectors;
  vectors.reserve(pieces.size());
  for (const auto piece : pieces) {
    if (!piece.empty()) {
      vectors.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
    }
  }
  write_all(temporary_.descriptor.number(), vectors, path_);
}

Commit AtomicFile::commit(bool durable) {
  const int descriptor = temporary_.descriptor.number();
  // The umask may have taken bits away that the old file has.
  if (keeps_mode_ && ::fchmod(descriptor, mode_) != 0 && !is_unsupported(errno)) {
    throw_os_error(errno, path_);
  }
  if (durable) {
    flush(descriptor, path_);
  }
  // NFS reports a full disk when a file is closed: close a second descriptor, since the first one holds the lock.
  if (const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0); copy < 0 || ::close(copy) != 0) {
    if (errno != EINTR) {
      throw_os_error(errno, path_);
    }
  }
  if (std::rename(temporary_.path.c_str(), target_.c_str()) == 0) {
    temporary_.path.clear();
    if (durable) {
      flush_directory(target_, path_);
    }
    return Commit::kRenamed;
  }
  if (!is_unsupported(errno)) {
    throw_os_error(errno, path_);
  }
  write_in_place(errno, durable);
  return Commit::kWrittenInPlace;
}

void AtomicFile::write_in_place(int rename_error, bool durable) {
  if (may_be_mapped(target_)) {
    throw_os_error(rename_error,
                   "The file system refuses to rename, and this process maps the file, so it cannot be "
                   "overwritten in place; save under another name",
                   path_);
  }
  try {
    copy_over(temporary_.descriptor.number(), target_, mode_ & 0777, durable, path_);
  } catch (const OsError& error) {
    const std::string kept = std::exchange(temporary_.path, {});
    throw_os_error(error.error_number(),
                   "Overwriting in place failed, and the file is incomplete now; all of the data is in " + kept, path_);
  }
}

}  // namespace torch_safetensors::io
