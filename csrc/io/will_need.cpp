#include "io/will_need.h"

#include <fcntl.h>

#include <algorithm>

namespace torch_safetensors::io {
namespace {

/// Linux reads ahead for one call no more than for a fault, which is this unless somebody changed it, and
/// leaves out the rest.
constexpr uint64_t kStep = 128 * 1024;

}  // namespace

void will_need([[maybe_unused]] const File& file, [[maybe_unused]] uint64_t offset,
               [[maybe_unused]] uint64_t size) noexcept {
#if defined(POSIX_FADV_WILLNEED)
  for (uint64_t done = 0; done < size; done += kStep) {
    ::posix_fadvise(file.descriptor(), static_cast<off_t>(offset + done),
                    static_cast<off_t>(std::min(kStep, size - done)), POSIX_FADV_WILLNEED);
  }
#endif
}

}  // namespace torch_safetensors::io
