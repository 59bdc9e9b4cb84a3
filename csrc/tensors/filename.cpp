#include "tensors/filename.h"

#include <c10/util/Exception.h>

#include "shared/filename.h"

namespace torch_safetensors::tensors {

std::string decode_filename(const std::string& filename) {
  std::optional<std::string> path = shared::decode_filename(filename);
  TORCH_CHECK_VALUE(path, "embedded null character in path");
  return *std::move(path);
}

}  // namespace torch_safetensors::tensors
