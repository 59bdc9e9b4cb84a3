#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>

namespace torch_safetensors::io {

/// The file that a save shall replace or create.
struct SaveTarget {
  std::string path;       ///< Symbolic links followed: renaming to it leaves them in place.
  std::string directory;  ///< The part of `path` up to its last slash, maybe empty.
  std::string name;       ///< The rest of it, never empty.
  std::optional<struct stat> existing;
  /// `path` is a link into a content-addressed cache, whose file other names share: to be replaced itself.
  bool is_shared = false;
};

/// The file that `path` stands for, which need not exist, also at the end of symbolic links. A link into the
/// `blobs` folder of a Hugging Face cache is not followed: the file there is named by the hash of its bytes,
/// and links of other revisions lead to it. Throws OsError, e.g. ELOOP, and EISDIR or EINVAL for what is not
/// a regular file.
SaveTarget find_save_target(const std::string& path);

}  // namespace torch_safetensors::io
