#include "io/direct_writer.h"

#include <fcntl.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/magic.h>
#include <sys/vfs.h>
#endif

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>

#include "io/os_error.h"
#include "io/progress.h"
#include "io/remote_file_system.h"
#include "io/retry.h"
#include "io/run_parallel.h"
#include "io/vectored_io.h"

namespace torch_safetensors::io {
namespace {

/// Large enough that a disk does not wait for the next one.
constexpr size_t kBlock = size_t{8} << 20;

/// For memory, offsets and sizes: no disk asks for more.
constexpr std::align_val_t kAlignment{4096};

#if defined(O_DIRECT)
bool set_direct(int descriptor, bool direct) {
  const int flags = ::fcntl(descriptor, F_GETFL);
  return flags >= 0 && ::fcntl(descriptor, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

/// Space in one go: blocks that arrive side by side would have to wait for each other to extend the file.
void allocate(int descriptor, uint64_t offset, uint64_t size) {
  // Writing finds out what is amiss.
  std::ignore = ::fallocate(descriptor, 0, static_cast<off_t>(offset), static_cast<off_t>(size));
}
#else
bool set_direct(int, bool) { return false; }
void allocate(int, uint64_t, uint64_t) {}
#endif

}  // namespace

bool DirectWriter::is_worth_while([[maybe_unused]] int descriptor) {
#if defined(__linux__)
  struct statfs status;
  return !is_on_remote_file_system(descriptor) && ::fstatfs(descriptor, &status) == 0 &&
         status.f_type != TMPFS_MAGIC;
#else
  return false;
#endif
}

DirectWriter::DirectWriter(int descriptor, std::string given)
    : descriptor_(descriptor), given_(std::move(given)), direct_(set_direct(descriptor, true)) {}

void DirectWriter::Free::operator()(std::byte* block) const noexcept { ::operator delete(block, kAlignment); }

DirectWriter::Block DirectWriter::new_block() {
  return Block(static_cast<std::byte*>(::operator new(kBlock, kAlignment)));
}

void DirectWriter::append(std::span<const std::span<const std::byte>> pieces) {
  if (!direct_) {
    finish();
    write_all(descriptor_, pieces, given_);
    return;
  }
  const Stretch stretch(pieces);
  const uint64_t total = pending_ + stretch.size();
  if (!begun_) {
    begun_ = new_block();
  }
  const std::span<std::byte> begun(begun_.get(), kBlock);
  const auto room = begun.subspan(pending_);
  stretch.copy_to(room.first(std::min<uint64_t>(room.size(), stretch.size())), 0);
  if (total >= kBlock) {
    write_blocks(stretch, total / kBlock);
    const size_t rest = total % kBlock;
    stretch.copy_to(begun.first(rest), stretch.size() - rest);
  }
  pending_ = total % kBlock;
}

/// The first of them is the one begun before.
void DirectWriter::write_blocks(const Stretch& stretch, size_t blocks) {
  allocate(descriptor_, offset_, blocks * kBlock);
  std::atomic<size_t> next{0};
  Progress* const progress = Progress::current();
  run_parallel(blocks_.size(), blocks_.size(), [&](size_t lane) {
    try {
      for (size_t block; (block = next.fetch_add(1)) < blocks;) {
        std::byte* from = begun_.get();
        if (block > 0) {
          if (!blocks_[lane]) {
            blocks_[lane] = new_block();
          }
          from = blocks_[lane].get();
          stretch.copy_to({from, kBlock}, block * kBlock - pending_);
        }
        write_at(offset_ + block * kBlock, {from, kBlock});
        if (progress != nullptr) {
          progress->advance(kBlock);
        }
      }
    } catch (...) {
      next = blocks;
      throw;
    }
  });
  offset_ += blocks * kBlock;
}

void DirectWriter::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const bool direct = direct_;
    const ssize_t count =
        retry([&] { return ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (count < 0 && errno == EINVAL && direct) {
      stop();  // refused, or the rest of a write that was cut short is not aligned
      continue;
    }
    if (count <= 0) {
      throw_os_error(count < 0 ? errno : EIO, given_);
    }
    offset += static_cast<size_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void DirectWriter::stop() {
  if (direct_ && !set_direct(descriptor_, false)) {
    throw_os_error(errno, given_);
  }
  direct_ = false;  // only now, for those who ask before they write
}

void DirectWriter::finish() {
  if (finished_) {
    return;
  }
  finished_ = true;
  stop();
  if (::lseek(descriptor_, static_cast<off_t>(offset_), SEEK_SET) < 0) {
    throw_os_error(errno, given_);
  }
  const std::span<const std::byte> rest(begun_.get(), pending_);
  write_all(descriptor_, {&rest, 1}, given_);
}

}  // namespace torch_safetensors::io
