#include "io/vectored_io.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "io/os_error.h"
#include "io/progress.h"
#include "io/retry.h"
#include "io/stretch.h"

namespace torch_safetensors::io {
namespace {

/// What is left of the pieces after their first `count` bytes.
std::span<iovec> skip(std::span<iovec> pieces, size_t count) {
  while (!pieces.empty() && count >= pieces.front().iov_len) {
    count -= pieces.front().iov_len;
    pieces = pieces.subspan(1);
  }
  if (count > 0) {
    iovec& piece = pieces.front();
    piece.iov_base = static_cast<std::byte*>(piece.iov_base) + count;
    piece.iov_len -= count;
  }
  return pieces;
}

void write_batch(int descriptor, std::span<iovec> batch, const std::string& path) {
  while (!batch.empty()) {
    const ssize_t count =
        retry([&] { return ::writev(descriptor, batch.data(), static_cast<int>(batch.size())); });
    if (count <= 0) {
      // No file system should take nothing without an error, but one that does must not hang us.
      throw_os_error(count < 0 ? errno : EIO, path);
    }
    batch = skip(batch, static_cast<size_t>(count));
  }
}

/// Bytes of one system call: less where somebody wants to know how far it is.
size_t most_at_once() { return Progress::current() != nullptr ? kReported : kMaxTransfer; }

void tell(size_t written) {
  if (Progress* const progress = Progress::current()) {
    progress->advance(written);
  }
}

/// Smaller pieces, on average, are copied together: the system spends longer on taking each.
constexpr uint64_t kSmallPiece = 4096;
constexpr uint64_t kGathered = uint64_t{1} << 20;

void write_gathered(int descriptor, const Stretch& stretch, const std::string& path) {
  std::vector<std::byte> buffer(std::min(stretch.size(), kGathered));
  for (uint64_t begin = 0; begin < stretch.size(); begin += buffer.size()) {
    const auto part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), stretch.size() - begin));
    stretch.copy_to(part, begin);
    iovec whole{part.data(), part.size()};
    write_batch(descriptor, {&whole, 1}, path);
    tell(part.size());
  }
}

}  // namespace

void write_all(int descriptor, std::span<const std::span<const std::byte>> pieces, const std::string& path) {
  if (const Stretch stretch(pieces); stretch.size() < pieces.size() * kSmallPiece) {
    write_gathered(descriptor, stretch, path);
    return;
  }
  std::vector<iovec> batch;
  batch.reserve(std::min(pieces.size(), kMaxPieces));
  size_t batch_size = 0;
  const size_t most = most_at_once();
  const auto flush = [&] {
    write_batch(descriptor, batch, path);
    tell(batch_size);
    batch.clear();
    batch_size = 0;
  };
  for (std::span<const std::byte> piece : pieces) {
    while (!piece.empty()) {
      const auto part = piece.first(std::min(piece.size(), most - batch_size));
      batch.push_back({const_cast<std::byte*>(part.data()), part.size()});
      batch_size += part.size();
      piece = piece.subspan(part.size());
      if (batch.size() == kMaxPieces || batch_size == most) {
        flush();
      }
    }
  }
  if (!batch.empty()) {
    flush();
  }
}

void write_at(int descriptor, uint64_t offset, std::span<const std::byte> bytes, const std::string& path) {
  const size_t most = most_at_once();
  while (!bytes.empty()) {
    const size_t wanted = std::min(bytes.size(), most);
    const ssize_t count =
        retry([&] { return ::pwrite(descriptor, bytes.data(), wanted, static_cast<off_t>(offset)); });
    if (count <= 0) {
      throw_os_error(count < 0 ? errno : EIO, path);
    }
    tell(static_cast<size_t>(count));
    offset += static_cast<size_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void read_scattered(const File& file, uint64_t offset, std::span<iovec> into) {
  while (!into.empty()) {
    const ssize_t count = retry([&] {
      return ::preadv(file.descriptor(), into.data(), static_cast<int>(into.size()),
                      static_cast<off_t>(offset));
    });
    if (count <= 0) {
      // The end of the file or an error: the plain call meets it again and finds the words.
      const iovec& piece = into.front();
      const std::span<std::byte> rest(static_cast<std::byte*>(piece.iov_base), piece.iov_len);
      file.read_at(offset, rest);
      offset += rest.size();
      into = into.subspan(1);
      continue;
    }
    offset += static_cast<size_t>(count);
    into = skip(into, static_cast<size_t>(count));
  }
}

}  // namespace torch_safetensors::io
