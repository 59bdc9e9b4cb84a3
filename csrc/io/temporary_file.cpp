#include "io/temporary_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "io/dead_file.h"
#include "io/directory.h"
#include "io/file_lock.h"
#include "io/os_error.h"
#include "io/path_checks.h"
#include "io/retry.h"

namespace torch_safetensors::io {
namespace {

constexpr std::string_view kPrefix = ".st-";

/// Saves to one target at a time, and leftovers that cannot be removed.
constexpr int kMaxSlots = 1024;

/// So many free slots in a row are taken for the end: several saves at once leave gaps.
constexpr int kMaxGap = 8;

/// A new file can be taken for dead before it is locked, so creating it may have to be repeated.
constexpr int kMaxAttempts = 16;

/// 16 hexadecimal digits of 64-bit FNV-1a: equal in every program, unlike std::hash.
std::string hash(std::string_view text) {
  uint64_t value = 0xCBF29CE484222325;
  for (const char c : text) {
    value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  std::array<char, 17> digits;
  std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(value));
  return digits.data();
}

/// True if nobody took the new file for dead between its creation and its lock.
bool claim(const std::string& path, int descriptor) {
  switch (try_lock(descriptor)) {
    case Lock::kAcquired:
      return is_name_of(path, descriptor);
    case Lock::kBusy:
      return false;  // somebody is about to remove it
    case Lock::kUnsupported:
      return true;  // for everybody, so nobody removes anything
  }
  return false;
}

/// The file, created; or none if somebody living is in the slot.
Descriptor create(const std::string& path, mode_t mode, const std::string& given) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    Descriptor descriptor(retry(
        [&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode); }));
    if (descriptor) {
      if (claim(path, descriptor.get())) {
        return descriptor;
      }
    } else if (errno != EEXIST) {
      throw_os_error(errno, given);
    } else if (remove_if_dead(path) == Remains::kKept) {
      break;
    }
  }
  return Descriptor();
}

/// Removes what the dead left in the slots from `slot` on.
void sweep(const std::string& prefix, int slot) {
  struct stat status;
  for (int gap = 0; slot < kMaxSlots && gap < kMaxGap; ++slot) {
    const std::string path = prefix + std::to_string(slot);
    // Nearly always there is nothing, which lstat finds out sooner than an attempt to open it.
    if (::lstat(path.c_str(), &status) != 0) {
      ++gap;
    } else {
      remove_if_dead(path);
      gap = 0;
    }
  }
}

}  // namespace

TemporaryFile::TemporaryFile(const SaveTarget& target, mode_t mode, const std::string& given) {
  const std::string prefix = target.directory + std::string(kPrefix) + hash(target.name) + "-";
  int slot = 0;
  for (; slot < kMaxSlots && !descriptor_; ++slot) {
    path_ = prefix + std::to_string(slot);
    descriptor_ = create(path_, mode, given);
  }
  if (!descriptor_) {
    throw_os_error(EEXIST,
                   std::to_string(kMaxSlots) + " temporary files of other saves are in the way; remove " +
                       quoted_path(prefix + "*"),
                   given);
  }
  sweep(prefix, slot);
}

void TemporaryFile::remove() noexcept {
  if (descriptor_) {
    ::unlink(path_.c_str());  // before the lock goes with the descriptor: the name may be another's then
    descriptor_.close();
  }
}

bool TemporaryFile::is_in_place(const std::string& given) const {
  struct stat named;
  struct stat open;
  if (::lstat(path_.c_str(), &named) != 0) {
    if (errno == ENOENT) {
      return false;
    }
    throw_os_error(errno, given);
  }
  if (::fstat(descriptor(), &open) != 0) {
    throw_os_error(errno, given);
  }
  // Some network file systems number files anew, hence the size: another's copy of that size is whole.
  return is_same_file(named, open) || named.st_size == open.st_size;
}

void TemporaryFile::release() { descriptor_.close(); }

void remove_dead_files(const std::string& directory) {
  for (const std::string& name : list_directory(directory)) {
    if (name.starts_with(kPrefix)) {
      remove_if_dead(directory + "/" + name);
    }
  }
}

}  // namespace torch_safetensors::io
