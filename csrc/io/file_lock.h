#pragma once

#include <string>

namespace torch_safetensors::io {

/// What became of an attempt to lock a file.
enum class Lock {
  kAcquired,     ///< It ends when the descriptor is closed, or its process ends in whatever way.
  kBusy,         ///< Somebody else holds it.
  kUnsupported,  ///< The file system has no locks: nothing is known about others.
};

/// Tries to lock the whole file without waiting, against other processes and other descriptors of this one.
Lock try_lock(int descriptor);

/// Waits for the lock. Throws OsError about `given`, also where the file system has no locks.
void wait_for_lock(int descriptor, const std::string& given);

/// True if `path` is the name of the open file.
bool is_name_of(const std::string& path, int descriptor);

}  // namespace torch_safetensors::io
