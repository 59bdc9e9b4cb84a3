#pragma once

#include <cstdio>
#include <cstdlib>

namespace torch_safetensors::fuzz {

/// Ends the program, which the fuzzer reports together with the input, if a promise is not kept.
inline void require(bool kept, const char* promise) {
  if (!kept) {
    std::fprintf(stderr, "broken promise: %s\n", promise);
    std::abort();
  }
}

}  // namespace torch_safetensors::fuzz
