#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/file.h"

namespace torch_safetensors::io {

/// So many pieces of memory go into one system call: IOV_MAX of Linux and macOS.
inline constexpr size_t kMaxPieces = 1024;

/// So many bytes go into one system call: macOS refuses more than INT_MAX.
inline constexpr size_t kMaxTransfer = size_t{1} << 30;

/// Appends all pieces at the descriptor's position, and tells Progress. Throws OsError about `path`.
void write_all(int descriptor, std::span<const std::span<const std::byte>> pieces, const std::string& path);

/// Writes all of `bytes` at `offset`, wherever the descriptor's position is, which stays there. Throws
/// OsError about `path`. Safe to call from several threads.
void write_at(int descriptor, uint64_t offset, std::span<const std::byte> bytes, const std::string& path);

/// Fills the pieces, at most kMaxPieces and none of them empty, from one stretch of the file that begins at
/// `offset`. Uses the memory of `into` up. Throws as File::read_at.
void read_scattered(const File& file, uint64_t offset, std::span<iovec> into);

}  // namespace torch_safetensors::io
