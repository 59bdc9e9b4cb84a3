#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <new>
#include <tuple>
#include <utility>

#include "io/disk_flush.h"
#include "io/os_error.h"
#include "io/overwrite.h"
#include "io/remote_file_system.h"
#include "io/vectored_io.h"

namespace torch_safetensors::io {
namespace {

/// A file with an existing one's contents-to-be must never be more open than that, not for a moment.
mode_t creation_mode(const SaveTarget& target, mode_t new_mode) {
  return target.existing ? target.existing->st_mode & 0777 : new_mode;
}

bool has_no_rename(int error) {
  // ENOTSUP is EOPNOTSUPP on Linux, and another number on macOS.
  return error == ENOSYS || error == EOPNOTSUPP || error == ENOTSUP || error == EPERM;
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path, bool durable, Order order, mode_t new_mode)
    : path_(path),
      target_(find_save_target(path)),
      temporary_(target_, creation_mode(target_, new_mode), path,
                 order == Order::kByOthers ? Access::kOthers : Access::kMaker),
      durable_(durable) {
  if (durable && order == Order::kAppended && DirectWriter::is_worth_while(temporary_.descriptor())) {
    direct_.emplace(temporary_.descriptor(), path);
  }
}

/// A thread that fails need not be the one that commits, nor tell it.
template <typename Write>
void AtomicFile::or_fail(Write write) {
  try {
    write();
  } catch (const OsError& error) {
    failure_ = error.error_number();
    throw;
  } catch (...) {
    failure_ = ECANCELED;
    throw;
  }
}

void AtomicFile::write(std::span<const std::span<const std::byte>> pieces) {
  or_fail([&] {
    if (direct_) {
      direct_->append(pieces);
    } else {
      write_all(temporary_.descriptor(), pieces, path_);
    }
  });
}

void AtomicFile::reserve([[maybe_unused]] uint64_t size) {
#if defined(__linux__)
  // A full disk is found out now, and not after hours of work. Whatever else is amiss, writing will tell.
  if (::fallocate(temporary_.descriptor(), 0, 0, static_cast<off_t>(size)) != 0 &&
      (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
    throw_os_error(errno, path_);
  }
#endif
}

void AtomicFile::extend(uint64_t size) {
  or_fail([&] {
    reserve(size);
    if (::ftruncate(temporary_.descriptor(), static_cast<off_t>(size)) != 0) {
      throw_os_error(errno, path_);
    }
  });
}

void AtomicFile::publish_to_hosts() {
  or_fail([&] {
    if (is_on_remote_file_system(temporary_.descriptor())) {
      flush_file(temporary_.descriptor(), path_);
    }
  });
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  or_fail([&] { io::write_at(temporary_.descriptor(), offset, bytes, path_); });
}

void AtomicFile::aim_at(const std::string& path) {
  if (path != path_) {
    target_ = find_save_target(path);
    path_ = path;
  }
}

Commit AtomicFile::commit() {
  if (failure_ != 0) {
    throw_os_error(failure_, os_error_text(failure_) + ", when the file was being written", path_);
  }
  if (direct_) {
    direct_->finish();
  }
  restore_attributes();
  if (durable_) {
    flush_file(temporary_.descriptor(), path_);
  }
  check_delayed_errors(temporary_.descriptor(), path_);
  if (!temporary_.is_in_place(path_)) {
    throw_os_error(ENOENT, "the temporary file was removed by someone else during the save", path_);
  }
  Commit result = Commit::kRenamed;
  if (::rename(temporary_.path().c_str(), target_.path.c_str()) == 0) {
    temporary_.release();
  } else if (has_no_rename(errno)) {
    write_in_place(errno);
    result = Commit::kWrittenInPlace;
  } else {
    throw_os_error(errno, path_);
  }
  is_published_ = true;
  if (durable_) {
    flush_name();
  }
  return result;
}

void AtomicFile::flush_name() const {
  try {
    flush_directory(target_.directory, path_);
  } catch (const OsError& error) {
    const int number = error.error_number();
    throw_os_error(number,
                   os_error_text(number) + "; the new file is in place, but may not survive a power failure",
                   path_);
  }
}

void AtomicFile::restore_attributes() const {
  struct stat now;
  if (!target_.existing || ::fstat(temporary_.descriptor(), &now) != 0) {
    return;
  }
  // All of it as far as it goes: many FUSE mounts have neither owners nor modes, and the file is good anyway.
  const struct stat& before = *target_.existing;
  const bool has_other_owner = now.st_uid != before.st_uid || now.st_gid != before.st_gid;
  if (has_other_owner && ::fchown(temporary_.descriptor(), before.st_uid, before.st_gid) != 0) {
    std::ignore = ::fchown(temporary_.descriptor(), static_cast<uid_t>(-1), before.st_gid);
  }
  if (has_other_owner || now.st_mode != before.st_mode) {  // a change of the owner clears bits of the mode
    std::ignore = ::fchmod(temporary_.descriptor(), before.st_mode & 07777);
  }
}

void AtomicFile::write_in_place(int rename_error) {
  Descriptor target = open_to_overwrite(target_.path, rename_error, path_);
  try {
    copy_file(temporary_.descriptor(), std::move(target), durable_, path_);
  } catch (const std::bad_alloc&) {
    keep_whole();
    throw;
  } catch (const OsError& error) {
    keep_whole();
    const int number = error.error_number();
    throw_os_error(number,
                   os_error_text(number) + "; the file is incomplete now, and until the next save " +
                       quoted_path(temporary_.path()) + " holds the whole",
                   path_);
  }
  temporary_.remove();
}

/// The old contents are lost, so the new must not be: they stay, under the name they have.
void AtomicFile::keep_whole() {
  temporary_.leave();
  if (durable_) {
    try {
      flush_directory(target_.directory, path_);
    } catch (const OsError&) {
      // There is another error to be told of.
    }
  }
}

}  // namespace torch_safetensors::io
