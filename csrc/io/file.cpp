#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "io/os_error.h"
#include "io/path_checks.h"
#include "io/remote_file_system.h"
#include "io/retry.h"

namespace torch_safetensors::io {
namespace {

static_assert(sizeof(size_t) == 8 && sizeof(off_t) == 8, "files and their mappings exceed 32 bits");

/// macOS refuses more than INT_MAX bytes at once, Linux reads less than asked for.
constexpr size_t kMaxRead = size_t{1} << 30;

/// Longer than Linux leaves a lease to its holder (/proc/sys/fs/lease-break-time).
constexpr std::chrono::seconds kLeasePatience{90};
constexpr std::chrono::milliseconds kLeasePause{10};

/// Without O_NONBLOCK a FIFO that nobody writes to would stop the program here.
Descriptor try_open(const std::string& path) {
  return Descriptor(retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
}

/// Somebody (Samba) holds a lease and needs a moment to give it back. Not by an open that waits: it would
/// have no end where a FIFO took the name.
Descriptor open_after_lease(const std::string& path) {
  const auto end = std::chrono::steady_clock::now() + kLeasePatience;
  for (;;) {
    Descriptor descriptor = try_open(path);
    if (descriptor || errno != EWOULDBLOCK || std::chrono::steady_clock::now() >= end) {
      return descriptor;
    }
    std::this_thread::sleep_for(kLeasePause);
  }
}

Descriptor open_for_reading(const std::string& path) {
  require_no_nul(path);
  Descriptor descriptor = try_open(path);
  if (descriptor) {
    return descriptor;
  }
  const int error = errno;
  if (struct stat status; ::stat(path.c_str(), &status) == 0) {
    if (error == ENXIO || error == EOPNOTSUPP) {
      require_regular(status, path);  // a socket: it cannot be opened at all
    }
    if (error == EWOULDBLOCK && S_ISREG(status.st_mode)) {
      if (Descriptor waited = open_after_lease(path)) {
        return waited;
      }
    }
  }
  throw_os_error(error, path);
}

[[noreturn]] void throw_truncated(const File& file, uint64_t reached, uint64_t wanted) {
  struct stat status;
  if (::fstat(file.descriptor(), &status) == 0) {
    reached = std::min(reached, static_cast<uint64_t>(status.st_size));
  }
  throw_os_error(EIO,
                 "file ended at byte " + std::to_string(reached) + " while reading up to byte " +
                     std::to_string(wanted) + ": it was truncated after it was opened",
                 file.path());
}

}  // namespace

File::File(std::string path) : path_(std::move(path)), descriptor_(open_for_reading(path_)) {
  struct stat status;
  if (::fstat(descriptor(), &status) != 0) {
    throw_os_error(errno, path_);
  }
  require_regular(status, path_);
  size_ = static_cast<uint64_t>(status.st_size);
}

bool File::is_remote() const { return is_on_remote_file_system(descriptor()); }

void File::read_at(uint64_t offset, std::span<std::byte> into) const {
  const uint64_t end = offset + into.size();
  while (!into.empty()) {
    const size_t wanted = std::min(into.size(), kMaxRead);
    const ssize_t count =
        retry([&] { return ::pread(descriptor(), into.data(), wanted, static_cast<off_t>(offset)); });
    if (count < 0) {
      throw_os_error(errno, path_);
    }
    if (count == 0) {
      throw_truncated(*this, offset, end);
    }
    offset += static_cast<size_t>(count);
    into = into.subspan(static_cast<size_t>(count));
  }
}

}  // namespace torch_safetensors::io
