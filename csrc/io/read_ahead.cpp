#include "io/read_ahead.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <span>
#include <thread>
#include <vector>

#include "io/descriptor.h"
#include "io/retry.h"

namespace torch_safetensors::io {
namespace {

#if defined(RWF_NOWAIT)

constexpr uint64_t kMiB = uint64_t{1} << 20;

/// Below this it is over before a thread has started.
constexpr uint64_t kMinSize = 16 * kMiB;

/// As large as makes disks fast, and small enough to stop soon.
constexpr size_t kStep = kMiB;

/// Places looked at to find out whether the file is in memory.
constexpr uint64_t kProbes = 16;

/// What is read must still be there when it is wanted.
bool fits_in_memory(uint64_t size) {
  const auto pages = static_cast<uint64_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
  const auto page_size = static_cast<uint64_t>(std::max(0L, ::sysconf(_SC_PAGESIZE)));
  return size <= pages * page_size / 2;
}

/// True if a byte can be read without waiting for the disk, also where the system does not tell.
bool is_in_memory(int descriptor, uint64_t offset) {
  char byte;
  iovec piece{&byte, 1};
  return ::preadv2(descriptor, &piece, 1, static_cast<off_t>(offset), RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

bool is_worth_it(const File& file) {
  if (file.size() < kMinSize) {
    return false;
  }
  for (uint64_t i = 0; i < kProbes; ++i) {
    if (!is_in_memory(file.descriptor(), file.size() / kProbes * i)) {
      return true;
    }
  }
  return false;
}

/// A file of the thread's own: the caller's may be closed any time.
struct OwnFile {
  Descriptor descriptor;
  uint64_t size;
};

/// Reads to `nowhere`: what counts is that the pages are in memory then. An error is for others to meet.
void read_all(const OwnFile& file, std::span<char> nowhere, const std::atomic<bool>& stop) {
  for (uint64_t offset = 0; offset < file.size && !stop; offset += nowhere.size()) {
    if (retry([&] {
          return ::pread(file.descriptor.get(), nowhere.data(), nowhere.size(), static_cast<off_t>(offset));
        }) <= 0) {
      return;
    }
  }
}

std::vector<OwnFile> files_worth_it(std::span<const File* const> files) {
  std::vector<OwnFile> own;
  uint64_t size = 0;
  for (const File* file : files) {
    size += file->size();
    if (is_worth_it(*file)) {
      if (Descriptor descriptor(::fcntl(file->descriptor(), F_DUPFD_CLOEXEC, 0)); descriptor) {
        own.push_back({std::move(descriptor), file->size()});
      }
    }
  }
  if (!fits_in_memory(size)) {
    own.clear();
  }
  return own;
}

#endif

}  // namespace

ReadAhead::ReadAhead([[maybe_unused]] std::span<const File* const> files) noexcept {
#if defined(RWF_NOWAIT)
  try {
    std::vector<OwnFile> own = files_worth_it(files);
    if (!own.empty()) {
      stop_ = std::make_shared<std::atomic<bool>>(false);
      std::vector<char> nowhere(kStep);
      std::thread([own = std::move(own), nowhere = std::move(nowhere), stop = stop_]() mutable {
        for (const OwnFile& file : own) {
          read_all(file, nowhere, *stop);
        }
      }).detach();
    }
  } catch (const std::exception&) {
    // No thread, no memory: the pages are read when they are touched.
  }
#endif
}

ReadAhead::~ReadAhead() {
  if (stop_) {
    *stop_ = true;
  }
}

}  // namespace torch_safetensors::io
