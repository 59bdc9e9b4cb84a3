#include "io/read_ahead.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <span>
#include <thread>
#include <vector>

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
  for (uint64_t i = 0; i < kProbes; ++i) {
    if (!is_in_memory(file.descriptor(), file.size() / kProbes * i)) {
      return true;
    }
  }
  return false;
}

/// Reads to `nowhere`: what counts is that the pages are in memory then. An error is for others to meet.
void read_all(const SteadyFile& steady, std::span<char> nowhere, const std::atomic<bool>& stop) {
  try {
    const std::shared_ptr<const File> file = steady.open();
    for (uint64_t offset = 0; offset < file->size() && !stop; offset += nowhere.size()) {
      if (retry([&] {
            return ::pread(file->descriptor(), nowhere.data(), nowhere.size(), static_cast<off_t>(offset));
          }) <= 0) {
        return;
      }
    }
  } catch (const std::exception&) {
  }
}

/// The thread's own: the caller's may be gone any time.
using Files = std::vector<std::shared_ptr<const SteadyFile>>;

Files files_worth_it(std::span<const std::shared_ptr<const SteadyFile>> files) {
  uint64_t size = 0;
  for (const auto& file : files) {
    size += file->size();
  }
  if (!fits_in_memory(size)) {
    return {};
  }
  Files own;
  for (const auto& file : files) {
    if (file->size() >= kMinSize && is_worth_it(*file->open())) {
      own.push_back(file);
    }
  }
  return own;
}

#endif

}  // namespace

ReadAhead::ReadAhead([[maybe_unused]] std::span<const std::shared_ptr<const SteadyFile>> files) noexcept {
#if defined(RWF_NOWAIT)
  try {
    Files own = files_worth_it(files);
    if (!own.empty()) {
      stop_ = std::make_shared<std::atomic<bool>>(false);
      std::vector<char> nowhere(kStep);
      std::thread([own = std::move(own), nowhere = std::move(nowhere), stop = stop_]() mutable {
        for (const auto& file : own) {
          read_all(*file, nowhere, *stop);
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
