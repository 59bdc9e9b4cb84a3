#include "io/will_need.h"

#include <fcntl.h>

namespace torch_safetensors::io {

void will_need([[maybe_unused]] const File& file, [[maybe_unused]] uint64_t offset,
               [[maybe_unused]] uint64_t size) noexcept {
#if defined(POSIX_FADV_WILLNEED)
  if (size > 0) {  // which would mean up to the end
    ::posix_fadvise(file.descriptor(), static_cast<off_t>(offset), static_cast<off_t>(size),
                    POSIX_FADV_WILLNEED);
  }
#endif
}

}  // namespace torch_safetensors::io
