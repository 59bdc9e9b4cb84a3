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

bool is_directory(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

/// True for `models--org--name/blobs/` and the like, as Hugging Face libraries lay out their caches: links in
/// `snapshots/<revision>/` lead there.
bool is_blobs_folder(std::string_view directory) {
  if (!directory.ends_with("/blobs/")) {
    return false;
  }
  const std::string beside = std::string(directory) + "../";
  if (is_directory(beside + "snapshots") || is_directory(beside + "refs")) {
    return true;
  }
  const std::string_view parent = directory.substr(0, directory.size() - std::string_view("/blobs/").size());
  const std::string_view repository = parent.substr(parent.rfind('/') + 1);
  return repository.starts_with("models--") || repository.starts_with("datasets--") ||
         repository.starts_with("spaces--");
}

/// Follows the links that `target.path` begins with.
void follow_links(SaveTarget& target, const std::string& given) {
  for (int followed = 0; followed <= kMaxLinks; ++followed) {
    std::array<char, PATH_MAX> link;
    const ssize_t length = ::readlink(target.path.c_str(), link.data(), link.size());
    if (length < 0 && (errno == EINVAL || errno == ENOENT)) {
      return;  // not a link, or nothing there yet
    }
    if (length < 0) {
      throw_os_error(errno, given);
    }
    const std::string_view to(link.data(), static_cast<size_t>(length));
    const std::string next = (to.starts_with('/') ? std::string() : directory_of(target.path)).append(to);
    if (is_blobs_folder(directory_of(next))) {
      target.is_shared = true;
      return;
    }
    target.path = next;
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
  target.path = path;
  follow_links(target, path);
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
