#include "io/in_place_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "io/disk_flush.h"
#include "io/os_error.h"
#include "io/path_checks.h"
#include "io/retry.h"
#include "io/vectored_io.h"

namespace torch_safetensors::io {
namespace {

/// Saves may put file after file under the name while the lock of one is waited for.
constexpr int kMaxAttempts = 100;

Descriptor open_in_place(const std::string& path, const std::string& given) {
  Descriptor file(retry([&] { return ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); }));
  if (!file) {
    throw_os_error(errno, given);
  }
  return file;
}

/// When the inode was made, since numbers are given again; empty where the system does not tell.
std::string birth([[maybe_unused]] int descriptor, [[maybe_unused]] const struct stat& status) {
#if defined(__linux__)
  struct statx extended;
  if (::statx(descriptor, "", AT_EMPTY_PATH, STATX_BTIME, &extended) == 0 &&
      (extended.stx_mask & STATX_BTIME) != 0) {
    return std::to_string(extended.stx_btime.tv_sec) + "." + std::to_string(extended.stx_btime.tv_nsec);
  }
  return {};
#elif defined(__APPLE__)
  return std::to_string(status.st_birthtimespec.tv_sec) + "." +
         std::to_string(status.st_birthtimespec.tv_nsec);
#else
  return {};
#endif
}

}  // namespace

InPlaceFile::InPlaceFile(const std::string& path, const OnWait& on_wait)
    : given_(path), target_(find_save_target(path)) {
  if (target_.is_shared) {
    throw_os_error(EPERM,
                   "the link leads into a cache, to a file that other revisions share and that must not "
                   "change; save a copy in place of the link first",
                   given_);
  }
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    lock_.reset();
    descriptor_.close();
    descriptor_ = open_in_place(target_.path, given_);
    lock_.emplace(descriptor_.get(), given_, on_wait);
    if (is_in_place()) {
      if (::fstat(descriptor_.get(), &status_) != 0) {
        throw_os_error(errno, given_);
      }
      require_regular(status_, given_);
      return;
    }
  }
  throw_os_error(EBUSY, "the file is replaced again and again", given_);
}

bool InPlaceFile::is_in_place() const {
  struct stat named;
  struct stat open;
  const bool is_there = ::lstat(target_.path.c_str(), &named) == 0;
  if ((!is_there && errno != ENOENT) || ::fstat(descriptor_.get(), &open) != 0) {
    throw_os_error(errno, given_);
  }
  return is_there && is_same_file(named, open);
}

std::string InPlaceFile::identity() const {
  return std::to_string(status_.st_ino) + " " + birth(descriptor_.get(), status_);
}

void InPlaceFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  io::write_at(descriptor_.get(), offset, bytes, given_);
}

void InPlaceFile::flush() { flush_file(descriptor_.get(), given_); }

bool InPlaceFile::has(std::string_view suffix) const {
  struct stat status;
  if (::lstat(beside(suffix).c_str(), &status) == 0) {
    return true;
  }
  if (errno != ENOENT && errno != ENAMETOOLONG) {
    throw_os_error(errno, given_);
  }
  return false;
}

void InPlaceFile::remove(std::string_view suffix) const {
  if (::unlink(beside(suffix).c_str()) != 0) {
    throw_os_error(errno, given_);
  }
}

void InPlaceFile::discard(std::string_view suffix) const noexcept { ::unlink(beside(suffix).c_str()); }

void InPlaceFile::flush_directory() const { io::flush_directory(target_.directory, given_); }

}  // namespace torch_safetensors::io
