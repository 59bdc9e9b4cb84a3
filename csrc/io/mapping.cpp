#include "io/mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "io/os_error.h"

namespace torch_safetensors::io {
namespace {

#if defined(MAP_NORESERVE)
// Writable private pages count against the commit limit as if all were written to: a file larger than
// the memory would not map where the kernel is strict.
constexpr int kFlags = MAP_PRIVATE | MAP_NORESERVE;
#else
constexpr int kFlags = MAP_PRIVATE;
#endif

}  // namespace

Mapping::Mapping(const File& file, uint64_t offset, size_t size) {
  if (size == 0) {
    return;  // mmap refuses a length of 0
  }
  skipped_ = offset % static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  // Never MAP_POPULATE: on writable private pages it copies the whole file.
  void* const data = ::mmap(nullptr, skipped_ + size, PROT_READ | PROT_WRITE, kFlags, file.descriptor(),
                            static_cast<off_t>(offset - skipped_));
  if (data == MAP_FAILED) {
    throw_os_error(errno, file.path());
  }
  bytes_ = {static_cast<std::byte*>(data) + skipped_, size};
}

Mapping::~Mapping() {
  if (!bytes_.empty()) {
    ::munmap(bytes_.data() - skipped_, skipped_ + bytes_.size());
  }
}

}  // namespace torch_safetensors::io
