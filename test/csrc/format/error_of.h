#pragma once

#include <string>

#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {

/// The message of the SafetensorError that `call` throws.
template <typename Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const SafetensorError& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace torch_safetensors::format
