#include "io/directory.h"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>

#include "io/os_error.h"

namespace torch_safetensors::io {

std::vector<std::string> list_directory(const std::string& path) {
  const auto close = [](DIR* directory) { ::closedir(directory); };
  const std::unique_ptr<DIR, decltype(close)> directory(::opendir(path.c_str()));
  if (!directory) {
    throw_os_error(errno, path);
  }
  std::vector<std::string> names;
  // Only errno tells the end from an error.
  for (errno = 0; const dirent* entry = ::readdir(directory.get()); errno = 0) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
  }
  if (errno != 0) {
    throw_os_error(errno, path);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace torch_safetensors::io
