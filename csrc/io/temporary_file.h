#pragma once

#include <sys/types.h>

#include <string>

#include "io/descriptor.h"

namespace torch_safetensors::io {

/// A file beside `target` that is locked while it is in use.
struct TemporaryFile {
  std::string path;
  Descriptor descriptor;
};

/// Creates one with the given permissions (the kernel applies the umask), and removes those that killed savers of
/// `target` left behind.
///
/// Names are `.st-<hash of the target's name>-<slot>`, so that a saver finds what others left without reading the
/// directory, and a name of 255 bytes has a temporary one. A lock (flock) tells a live temporary file from a
/// dead one; where the file system has no locks, none is ever taken for dead. Throws OsError about `path_for_errors`.
TemporaryFile create_temporary_file(const std::string& target, mode_t mode, const std::string& path_for_errors);

}  // namespace torch_safetensors::io
