#pragma once

#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "tensors/checkpoint.h"

namespace torch_safetensors::tensors {

/// Opens a checkpoint and returns what `use` makes of it, from a `std::unique_ptr<Checkpoint>`. Begins again
/// where it finds a file replaced that it has to open once more, a bounded number of times. So `use` must be
/// such that its end is the same however often it began.
template <typename Use>
auto with_checkpoint(const std::string& path, std::string_view backend, const Checkpoint::Opening& opening,
                     Use use) {
  constexpr int kMaxAttempts = 100;
  for (int attempt = 1;; ++attempt) {
    auto file = std::make_unique<Checkpoint>(path, backend, opening);
    try {
      return use(std::move(file));
    } catch (const OsError& error) {
      if (error.error_number() != ESTALE || attempt == kMaxAttempts) {
        throw;
      }
    }
  }
}

}  // namespace torch_safetensors::tensors
