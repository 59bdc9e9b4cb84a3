#pragma once

#include <cstring>

#include "io/parallel_read.h"
#include "io/steady_file.h"

namespace torch_safetensors::tensors {

/// Where the bytes of tensors come from. Safe to use from several threads.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  /// Fills all ranges on the calling thread; those that follow one another are read together.
  virtual void read(std::span<const io::ReadRange> ranges) const = 0;
};

/// An open file, which must outlive this.
class FileBytes : public ByteSource {
 public:
  explicit FileBytes(const io::SteadyFile& file) : file_(file) {}
  void read(std::span<const io::ReadRange> ranges) const override { io::read_in_turn(*file_.open(), ranges); }

 private:
  const io::SteadyFile& file_;
};

/// Memory, which must outlive this.
class MemoryBytes : public ByteSource {
 public:
  explicit MemoryBytes(std::span<const std::byte> bytes) : bytes_(bytes) {}
  void read(std::span<const io::ReadRange> ranges) const override {
    for (const io::ReadRange& range : ranges) {
      std::memcpy(range.into.data(), bytes_.data() + range.offset, range.into.size());
    }
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace torch_safetensors::tensors
