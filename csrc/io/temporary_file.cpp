#include "io/temporary_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>

#include "io/os_error.h"

namespace torch_safetensors::io {
namespace {

/// So many savers of one target at once; more is a sign of something else.
constexpr int kSlots = 1024;

/// Savers that were killed together leave gaps between them; the search for their files ends after so many free slots.
constexpr int kGap = 8;

/// FNV-1a.
uint64_t hash(std::string_view text) {
  uint64_t value = 0xcbf29ce484222325;
  for (const char c : text) {
    value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return value;
}

std::string slot_prefix(const std::string& target) {
  constexpr char kDigits[] = "0123456789abcdef";
  const size_t name_begin = target.rfind('/') + 1;  // npos + 1 is 0.
  std::string prefix = target.substr(0, name_begin) + ".st-";
  const uint64_t value = hash(std::string_view(target).substr(name_begin));
  for (int shift = 60; shift >= 0; shift -= 4) {
    prefix += kDigits[(value >> shift) & 15];
  }
  return prefix + '-';
}

int open_retrying(const std::string& path, int flags, mode_t mode = 0) {
  int descriptor;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

bool is_at(const Descriptor& file, const std::string& path) {
  struct stat ours;
  struct stat theirs;
  return ::fstat(file.number(), &ours) == 0 && ::lstat(path.c_str(), &theirs) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

enum class Lock { kTaken, kHeldByOther, kUnsupported };

Lock try_lock(const Descriptor& file) {
  int result;
  do {
    result = ::flock(file.number(), LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? Lock::kTaken : errno == EWOULDBLOCK ? Lock::kHeldByOther : Lock::kUnsupported;
}

/// Removes the file of a saver that no longer lives. False if it is alive, or nobody can tell.
bool remove_if_dead(const std::string& path) {
  const Descriptor file(open_retrying(path, O_RDWR));
  if (!file) {
    return errno == ENOENT;
  }
  // A saver may have renamed its file meanwhile, and another one created the name again.
  return try_lock(file) == Lock::kTaken && is_at(file, path) && ::unlink(path.c_str()) == 0;
}

/// An own file in that slot, or none if another saver has it.
Descriptor claim(const std::string& path, mode_t mode, const std::string& path_for_errors) {
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    Descriptor file(open_retrying(path, O_RDWR | O_CREAT | O_EXCL, mode));
    if (file) {
      // Between creating and locking it looked dead, and another saver may have removed it.
      const Lock lock = try_lock(file);
      if (lock == Lock::kUnsupported || (lock == Lock::kTaken && is_at(file, path))) {
        return file;
      }
    } else if (errno != EEXIST) {
      throw_os_error(errno, path_for_errors);
    } else if (!remove_if_dead(path)) {
      return {};
    }
  }
  return {};
}

void sweep(const std::string& prefix, int first) {
  struct stat status;
  for (int slot = first, gap = 0; slot < kSlots && gap < kGap; ++slot) {
    const std::string path = prefix + std::to_string(slot);
    if (::lstat(path.c_str(), &status) != 0) {
      ++gap;
    } else {
      gap = 0;
      remove_if_dead(path);
    }
  }
}

}  // namespace

TemporaryFile create_temporary_file(const std::string& target, mode_t mode, const std::string& path_for_errors) {
  const std::string prefix = slot_prefix(target);
  for (int slot = 0; slot < kSlots; ++slot) {
    std::string path = prefix + std::to_string(slot);
    if (Descriptor file = claim(path, mode, path_for_errors)) {
      sweep(prefix, slot + 1);
      return {std::move(path), std::move(file)};
    }
  }
  throw_os_error(EEXIST, "All " + std::to_string(kSlots) + " temporary names are in use: " + prefix + '*',
                 path_for_errors);
}

}  // namespace torch_safetensors::io
