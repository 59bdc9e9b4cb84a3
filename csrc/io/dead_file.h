#pragma once

#include <chrono>
#include <functional>
#include <string>

namespace torch_safetensors::io {

/// What `remove_if_dead` found.
enum class Remains {
  kNone,     ///< There is no such file.
  kRemoved,  ///< There was one that nobody held a lock on; it is gone.
  kKept,     ///< It is locked, thus somebody's work in progress, or it cannot be told or removed.
};

/// Removes a temporary file whose maker was killed. Its lock tells: a living maker holds it from the moment
/// of creation until the file has its final name. A file younger than `age`, since it was last written to, is
/// kept. `before` is called while the dead file is still there. Never waits, never throws.
Remains remove_if_dead(const std::string& path, std::chrono::seconds age = {},
                       const std::function<void()>& before = {});

}  // namespace torch_safetensors::io
