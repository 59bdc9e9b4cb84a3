#pragma once

#include <string>

namespace torch_safetensors::tensors {

/// As shared::decode_filename. Throws ValueError (c10) for what stands for no path.
std::string decode_filename(const std::string& filename);

}  // namespace torch_safetensors::tensors
