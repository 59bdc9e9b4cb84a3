#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace torch_safetensors::io {

/// A folder for one test, gone with this object.
class TestDirectory {
 public:
  TestDirectory() : path_(std::filesystem::temp_directory_path() / "io_test_XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) {
      throw std::runtime_error("mkdtemp: " + path_);
    }
  }
  ~TestDirectory() {
    ::chmod(path_.c_str(), 0700);  // a test may have taken its own rights away
    std::filesystem::remove_all(path_);
  }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

  /// The names in it, sorted. Read with readdir, since std::filesystem opens no name that is not UTF-8 on
  /// macOS.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    DIR* const directory = ::opendir(path_.c_str());
    while (const dirent* const entry = ::readdir(directory)) {
      if (const std::string name = entry->d_name; name != "." && name != "..") {
        names.push_back(name);
      }
    }
    ::closedir(directory);
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::string path_;
};

inline std::string write_file(const std::string& path, std::string_view contents) {
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

inline std::string read_file(const std::string& path) {
  std::ostringstream contents;
  contents << std::ifstream(path, std::ios::binary).rdbuf();
  return std::move(contents).str();
}

inline mode_t mode_of(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

/// Bytes that differ from one place to the next, with a period that is no power of two.
inline std::string pattern(size_t size) {
  constexpr size_t kPeriod = 251 * 257;  // some of it byte by byte, which takes its time under a sanitizer
  std::string bytes;
  bytes.reserve(size + kPeriod);
  for (size_t i = 0; i < std::min(size, kPeriod); ++i) {
    bytes += static_cast<char>(i % 251 + i / 257);
  }
  for (size_t i = 1; bytes.size() < size; ++i) {
    bytes.append(bytes, 0, kPeriod - i % 251);
  }
  bytes.resize(size);
  return bytes;
}

inline std::span<std::byte> writable(std::string& text) { return std::as_writable_bytes(std::span(text)); }

inline std::span<const std::byte> readable(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// How many descriptors this process has open.
inline size_t open_descriptors() {
#if defined(__linux__)
  const char* const folder = "/proc/self/fd";
#else
  const char* const folder = "/dev/fd";
#endif
  size_t count = 0;
  DIR* const directory = ::opendir(folder);
  while (::readdir(directory) != nullptr) {
    ++count;
  }
  ::closedir(directory);
  return count;
}

}  // namespace torch_safetensors::io
