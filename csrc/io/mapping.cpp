#include "io/mapping.h"

#include <sys/mman.h>

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

Mapping::Mapping(const File& file) {
  if (file.size() == 0) {
    return;  // mmap refuses a length of 0
  }
  // Never MAP_POPULATE: on writable private pages it copies the whole file.
  void* const data = ::mmap(nullptr, file.size(), PROT_READ | PROT_WRITE, kFlags, file.descriptor(), 0);
  if (data == MAP_FAILED) {
    throw_os_error(errno, file.path());
  }
  data_ = static_cast<std::byte*>(data);
  size_ = file.size();
}

Mapping::~Mapping() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

}  // namespace torch_safetensors::io
