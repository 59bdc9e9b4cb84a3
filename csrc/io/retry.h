#pragma once

#include <cerrno>

namespace torch_safetensors::io {

/// The result of a system call, made again for as long as a signal interrupts it (EINTR).
template <typename SystemCall>
auto retry(SystemCall call) {
  while (true) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) {
      return result;
    }
  }
}

}  // namespace torch_safetensors::io
