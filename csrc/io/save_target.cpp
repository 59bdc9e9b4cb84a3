#include "io/save_target.h"

#include <limits.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "io/os_error.h"
#include "io/path_checks.h"

namespace torch_safetensors::io {
namespace {

/// As the kernel's own limit.
constexpr int kMaxLinks = 40;

std::string directory_of(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }

std::optional<struct stat> status_of(const std::string& path, const std::string& given) {
  struct stat status;
  if (::stat(path.c_str(), &status) == 0) {
    return status;
  }
  if (errno != ENOENT) {
    throw_os_error(errno, given);
  }
  return std::nullopt;
}

std::string follow_links(const std::string& given) {
  std::string path = given;
  for (int followed = 0; followed <= kMaxLinks; ++followed) {
    std::array<char, PATH_MAX> link;
    const ssize_t length = ::readlink(path.c_str(), link.data(), link.size());
    if (length < 0 && (errno == EINVAL || errno == ENOENT)) {
      return path;  // not a link, or nothing there yet
    }
    if (length < 0) {
      throw_os_error(errno, given);
    }
    const std::string_view to(link.data(), static_cast<size_t>(length));
    path = (to.starts_with('/') ? std::string() : directory_of(path)).append(to);
  }
  throw_os_error(ELOOP, given);
}

/// Links in /proc/self/fd lead to open files, whatever their text says: a deleted one has no name to save to.
void require_named(const SaveTarget& target, const std::string& given) {
  const auto named = status_of(target.path, given);
  if (target.existing && !(named && is_same_file(*target.existing, *named))) {
    throw_os_error(EINVAL, "the link leads to a file without a name", given);
  }
}

}  // namespace

SaveTarget find_save_target(const std::string& path) {
  require_no_nul(path);
  SaveTarget target;
  // The kernel follows the links first: it refuses those that an attacker may have placed in /tmp
  // (fs.protected_symlinks), which reading them one by one would not.
  target.existing = status_of(path, path);
  if (target.existing) {
    require_regular(*target.existing, path);
  }
  target.path = follow_links(path);
  if (target.path != path) {
    require_named(target, path);
  }
  target.directory = directory_of(target.path);
  target.name = target.path.substr(target.directory.size());
  if (target.name.empty()) {
    throw_os_error(path.empty() ? ENOENT : EISDIR, path);  // as open(O_CREAT) says of "new/"
  }
  return target;
}

}  // namespace torch_safetensors::io
