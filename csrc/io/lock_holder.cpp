#include "io/lock_holder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#if defined(__linux__)
#include <sys/sysmacros.h>
#endif

namespace torch_safetensors::io {
namespace {

#if defined(__linux__)

/// The process that a line of /proc/locks is about, if it is about a flock of this file; 0 otherwise. Such a
/// line reads `5: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`.
long holder_in(const std::string& line, const struct stat& file) {
  std::istringstream words(line);
  std::string number, kind, strictness, access, place;
  long process = 0;
  if (!(words >> number >> kind >> strictness >> access >> process >> place) || kind != "FLOCK") {
    return 0;  // also of who waits, whose line has "->" behind the number
  }
  std::istringstream parts(place);
  unsigned device_major = 0, device_minor = 0;
  unsigned long inode = 0;
  char colon = 0;
  parts >> std::hex >> device_major >> colon >> device_minor >> colon >> std::dec >> inode;
  const bool is_same = parts && device_major == major(file.st_dev) && device_minor == minor(file.st_dev) &&
                       inode == file.st_ino;
  return is_same ? process : 0;
}

long holder_of(int descriptor) {
  struct stat file;
  if (::fstat(descriptor, &file) != 0) {
    return 0;
  }
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    if (const long process = holder_in(line, file); process > 0) {
      return process;
    }
  }
  return 0;
}

std::string name_of(long process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/comm");
  std::string name;
  std::getline(file, name);
  std::erase_if(name, [](char c) { return c < ' ' || c > '~'; });  // it may be anything
  return name.empty() ? "" : " (" + name + ")";
}

#else

long holder_of(int) { return 0; }
std::string name_of(long) { return {}; }

#endif

}  // namespace

std::string lock_holder(int descriptor) {
  const long process = holder_of(descriptor);
  if (process == 0) {
    return "another process";
  }
  if (process == ::getpid()) {
    return "another thread of this process";
  }
  return "process " + std::to_string(process) + name_of(process);
}

}  // namespace torch_safetensors::io
