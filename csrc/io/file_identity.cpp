#include "io/file_identity.h"

#include "io/file.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::io {
namespace {

int64_t nanoseconds(const struct timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

bool FileIdentity::has_content_of(const FileIdentity& other) const {
  FileIdentity same = other;
  same.changed = changed;
  return *this == same;
}

FileIdentity identity_of(const struct stat& status) {
#if defined(__APPLE__)
  const timespec &modified = status.st_mtimespec, &changed = status.st_ctimespec;
#else
  const timespec &modified = status.st_mtim, &changed = status.st_ctim;
#endif
  return {static_cast<uint64_t>(status.st_dev), static_cast<uint64_t>(status.st_ino),
          static_cast<uint64_t>(status.st_size), nanoseconds(modified), nanoseconds(changed)};
}

bool leads_to(const std::string& path, const FileIdentity& identity) {
  try {
    return File(path).identity() == identity;
  } catch (const OsError&) {
    return false;
  }
}

}  // namespace torch_safetensors::io
