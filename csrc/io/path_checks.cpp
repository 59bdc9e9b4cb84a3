#include "io/path_checks.h"

#include <cerrno>

#include "io/os_error.h"

namespace torch_safetensors::io {

void require_no_nul(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    throw_os_error(EINVAL, "embedded null byte", path);
  }
}

void require_regular(const struct stat& status, const std::string& path) {
  if (S_ISDIR(status.st_mode)) {
    throw_os_error(EISDIR, path);
  }
  if (!S_ISREG(status.st_mode)) {
    throw_os_error(EINVAL, "not a regular file", path);
  }
}

bool is_same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace torch_safetensors::io
