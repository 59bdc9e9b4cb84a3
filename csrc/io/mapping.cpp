#include "io/mapping.h"

#include <sys/mman.h>

#include <cerrno>

#include "io/os_error.h"

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

namespace torch_safetensors::io {

Mapping::Mapping(const File& file) : size_(file.size()) {
  if (size_ == 0) {
    return;  // mmap refuses an empty range.
  }
  // Never MAP_POPULATE: on writable private pages it copies the whole file. No reservation, since pages that are written
  // to are few: a file larger than memory and swap still maps.
  void* const address = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
                               file.descriptor(), 0);
  if (address == MAP_FAILED) {
    throw_os_error(errno, file.path());
  }
  data_ = static_cast<std::byte*>(address);
}

Mapping::~Mapping() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

}  // namespace torch_safetensors::io
