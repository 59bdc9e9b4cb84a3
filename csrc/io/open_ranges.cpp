#include "io/open_ranges.h"

#include <fcntl.h>

#include <cerrno>

#include "io/disk_flush.h"
#include "io/os_error.h"
#include "io/retry.h"
#include "io/vectored_io.h"

namespace torch_safetensors::io {

OpenRanges::OpenRanges(const std::string& path, const std::string& given)
    : given_(given),
      descriptor_(
          retry([&] { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); })) {
  if (!descriptor_) {
    const int number = errno;
    throw_os_error(number, os_error_text(number) + ", of its temporary file " + quoted_path(path), given_);
  }
}

void OpenRanges::write_at(uint64_t offset, std::span<const std::byte> bytes) const {
  io::write_at(descriptor_.get(), offset, bytes, given_);
}

void OpenRanges::finish(bool durable) const {
  if (durable) {
    flush_file(descriptor_.get(), given_);
  }
  check_delayed_errors(descriptor_.get(), given_);
}

}  // namespace torch_safetensors::io
