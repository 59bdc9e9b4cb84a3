#pragma once

#include <sys/resource.h>

#include <array>
#include <csignal>
#include <string>
#include <string_view>

#include "io/atomic_file.h"
#include "io/test_directory.h"

namespace torch_safetensors::io {

inline std::array<std::span<const std::byte>, 1> pieces_of(std::string_view contents) {
  return {readable(contents)};
}

inline Commit save(const std::string& path, std::string_view contents, bool durable = false) {
  AtomicFile file(path, durable);
  file.write(pieces_of(contents));
  return file.commit();
}

/// Writing beyond fails with EFBIG: a full disk without a mount. For children only, it cannot be undone.
inline void limit_file_size(rlim_t size) {
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{size, size};
  ::setrlimit(RLIMIT_FSIZE, &limit);
}

}  // namespace torch_safetensors::io
