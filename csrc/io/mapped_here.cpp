#include "io/mapped_here.h"

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>

namespace torch_safetensors::io {
namespace {

#if defined(__linux__)

std::string canonical(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  return real ? real.get() : path;
}

/// True if the line of /proc/self/maps is about that file.
bool is_about(const std::string& line, uint64_t inode, const std::string& path) {
  uint64_t mapped_inode = 0;
  // <addresses> <permissions> <offset> <device> <inode> <path>
  if (std::sscanf(line.c_str(), "%*s %*s %*s %*s %" SCNu64, &mapped_inode) != 1) {
    return true;
  }
  // Devices are not compared, for btrfs and overlays show others here than stat does; overlays other inodes
  // too, hence the path.
  return mapped_inode == inode || line.ends_with(" " + path);
}

#endif

}  // namespace

bool is_mapped_here([[maybe_unused]] const std::string& path, [[maybe_unused]] const struct stat& status) {
#if defined(__linux__)
  std::ifstream maps("/proc/self/maps");
  if (!maps) {
    return true;
  }
  const std::string real = canonical(path);
  for (std::string line; std::getline(maps, line);) {
    if (is_about(line, status.st_ino, real)) {
      return true;
    }
  }
  return maps.bad();
#else
  return true;
#endif
}

}  // namespace torch_safetensors::io
