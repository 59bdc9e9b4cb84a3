#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "require.h"

namespace torch_safetensors::fuzz {

/// A file in memory whose content is put in place for each input.
class ScratchFile {
 public:
  ScratchFile()
      : descriptor_(memfd_create("input", 0)), path_("/proc/self/fd/" + std::to_string(descriptor_)) {
    require(descriptor_ >= 0, "there is a file to write to");
  }

  const std::string& path() const { return path_; }

  void fill(std::span<const uint8_t> bytes) {
    const auto size = static_cast<ssize_t>(bytes.size());
    require(ftruncate(descriptor_, 0) == 0 && pwrite(descriptor_, bytes.data(), bytes.size(), 0) == size,
            "the file takes the input");
  }

 private:
  int descriptor_;
  std::string path_;
};

}  // namespace torch_safetensors::fuzz
