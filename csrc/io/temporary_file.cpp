#include "io/temporary_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <exception>
#include <utility>

#include "io/dead_file.h"
#include "io/directory.h"
#include "io/file_lock.h"
#include "io/lock_domain.h"
#include "io/os_error.h"
#include "io/path_checks.h"
#include "io/retry.h"
#include "io/temporary_name.h"

namespace torch_safetensors::io {
namespace {

/// So many free slots in a row are taken for the end: several saves at once leave gaps.
constexpr int kMaxGap = 8;

/// So often creating a file is repeated: it can be taken for dead before it is locked.
constexpr int kMaxAttempts = 16;

/// Longer than a save pauses between two writes, and than clocks of hosts differ. What is removed was
/// written by a host whose locks may not be seen here, or by this one before it was started again.
constexpr std::chrono::hours kForeignAge{7 * 24};

/// Removes the files for others that belong to a slot.
void remove_others(const std::string& slot_path) noexcept {
  const size_t begin = slot_path.rfind('/') + 1;
  const std::string directory = slot_path.substr(0, begin);
  const std::string prefix = slot_path.substr(begin) + "-";
  try {
    for (const std::string& name : list_directory(directory.empty() ? "." : directory)) {
      if (name.starts_with(prefix) && parse_temporary_name(name)) {
        remove_if_dead(directory + name);
      }
    }
  } catch (const std::exception&) {
    // A directory that cannot be listed: they stay.
  }
}

/// The file that is in the slot and dead, and before it, by which they are found, those for others.
Remains empty_slot(const std::string& path) {
  return remove_if_dead(path, {}, [&] { remove_others(path); });
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
      empty_slot(path);
      gap = 0;
    }
  }
}

}  // namespace

/// The file, created and locked; or none if somebody living is in the slot.
TemporaryFile::Locked TemporaryFile::create(std::string path, mode_t mode, const std::string& given) {
  Locked file{std::move(path), Descriptor(), nullptr};
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    Descriptor descriptor(retry(
        [&] { return ::open(file.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode); }));
    if (descriptor) {
      // Somebody may take the new file for dead before it is locked, and remove it.
      const Lock lock = try_lock(descriptor.get());
      if (lock == Lock::kAcquired) {
        file.lock = std::make_unique<LockGuard>(descriptor.get());
      }
      if (lock == Lock::kUnsupported || (file.lock && is_name_of(file.path, descriptor.get()))) {
        file.descriptor = std::move(descriptor);
        break;
      }
      file.lock.reset();
    } else if (errno != EEXIST) {
      throw_os_error(errno, given);
    } else if (empty_slot(file.path) == Remains::kKept) {
      break;
    }
  }
  return file;
}

TemporaryFile::TemporaryFile(const SaveTarget& target, mode_t mode, const std::string& given, Access access) {
  const std::string prefix = target.directory + temporary_prefix(target.name, lock_domain(target.directory));
  int slot = 0;
  for (; slot < kMaxSlots && !file_.descriptor; ++slot) {
    file_ = create(prefix + std::to_string(slot), mode, given);
  }
  if (!file_.descriptor) {
    throw_os_error(EEXIST,
                   std::to_string(kMaxSlots) + " temporary files of other saves are in the way; remove " +
                       quoted_path(prefix + "*"),
                   given);
  }
  sweep(prefix, slot);
  if (access == Access::kOthers) {
    make_for_others(mode, given);
  }
}

/// What was made is the file in the slot.
void TemporaryFile::make_for_others(mode_t mode, const std::string& given) {
  std::swap(slot_, file_);
  try {
    file_ = create(slot_.path + "-" + random_token(), mode, given);
    if (!file_.descriptor) {
      throw_os_error(EEXIST, given);
    }
  } catch (...) {
    remove();  // the destructor is not called
    throw;
  }
}

void TemporaryFile::remove(Locked& file) noexcept {
  if (file.descriptor && process_ == ::getpid()) {
    ::unlink(file.path.c_str());  // before the lock goes: the name may be another's then
  }
  let_go(file);
}

void TemporaryFile::let_go(Locked& file) noexcept {
  file.lock.reset();
  file.descriptor.close();
}

void TemporaryFile::remove() noexcept {
  remove(file_);
  remove(slot_);
}

void TemporaryFile::release() noexcept {
  let_go(file_);
  remove(slot_);
}

void TemporaryFile::leave() noexcept {
  let_go(file_);
  let_go(slot_);
}

bool TemporaryFile::is_in_place(const std::string& given) const {
  struct stat named;
  struct stat open;
  if (::lstat(path().c_str(), &named) != 0) {
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

void remove_dead_files(const std::string& directory) {
  const std::string here = lock_domain(directory);
  for (const std::string& name : list_directory(directory)) {
    if (const auto parts = parse_temporary_name(name)) {
      const bool is_foreign = parts->domain != here;
      remove_if_dead(directory + "/" + name, is_foreign ? kForeignAge : std::chrono::hours(0));
    }
  }
}

}  // namespace torch_safetensors::io
