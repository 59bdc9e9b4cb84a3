#include "io/overwrite.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <vector>

#include "io/disk_flush.h"
#include "io/mapped_here.h"
#include "io/os_error.h"
#include "io/path_checks.h"
#include "io/retry.h"
#include "io/vectored_io.h"

namespace torch_safetensors::io {
namespace {

constexpr size_t kBufferSize = size_t{4} << 20;

Descriptor open_with(const std::string& path, int flags) {
  return Descriptor(
      retry([&] { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK | flags, 0666); }));
}

void make_empty(const Descriptor& file, const std::string& path, const std::string& given) {
  if (retry([&] { return ::ftruncate(file.get(), 0); }) != 0 && !open_with(path, O_TRUNC)) {
    throw_os_error(errno, given);  // FUSE file systems may know one of the two and not the other
  }
}

}  // namespace

Descriptor open_to_overwrite(const std::string& target, int refused, const std::string& given) {
  Descriptor file = open_with(target, O_CREAT | O_NOFOLLOW);
  struct stat status;
  if (!file || ::fstat(file.get(), &status) != 0) {
    throw_os_error(errno, given);
  }
  require_regular(status, given);
  if (status.st_size > 0) {
    if (is_mapped_here(target, status)) {
      throw_os_error(refused,
                     os_error_text(refused) +
                         "; the file cannot be renamed into place, nor overwritten while this process "
                         "has it mapped; save under another name",
                     given);
    }
    make_empty(file, target, given);
  }
  return file;
}

void copy_file(int source, Descriptor target, bool durable, const std::string& given) {
  std::vector<std::byte> buffer(kBufferSize);
  for (off_t offset = 0;;) {
    const ssize_t count = retry([&] { return ::pread(source, buffer.data(), buffer.size(), offset); });
    if (count < 0) {
      throw_os_error(errno, given);
    }
    if (count == 0) {
      break;
    }
    const std::span<const std::byte> piece(buffer.data(), static_cast<size_t>(count));
    write_all(target.get(), {&piece, 1}, given);
    offset += count;
  }
  if (durable) {
    flush_file(target.get(), given);
  }
  if (const int error = target.close(); error != 0 && error != EINTR) {
    throw_os_error(error, given);
  }
}

}  // namespace torch_safetensors::io
