#include "format/no_holes.h"

#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

[[noreturn]] void throw_invalid_offset(const TensorEntry& tensor, const std::string& reason) {
  throw SafetensorError("tensor " + in_quotes(tensor.name) + ": invalid offset: data_offsets [" +
                        std::to_string(tensor.begin) + ", " + std::to_string(tensor.end) + ") " + reason);
}

}  // namespace

void check_no_holes(std::span<const TensorEntry> tensors) {
  uint64_t end = 0;
  for (const TensorEntry& tensor : tensors) {
    if (tensor.end < tensor.begin) {
      throw_invalid_offset(tensor, "end before they begin");
    }
    if (tensor.begin > end) {
      throw_invalid_offset(tensor, "leave a hole after byte " + std::to_string(end));
    }
    if (tensor.begin < end) {
      throw_invalid_offset(tensor, "overlap the tensor that ends at byte " + std::to_string(end));
    }
    end = tensor.end;
  }
}

void check_data_size(std::span<const TensorEntry> tensors, uint64_t data_size) {
  const uint64_t end = tensors.empty() ? 0 : tensors.back().end;
  if (end != data_size) {
    throw SafetensorError("incomplete metadata, file not fully covered: the tensors end at byte " +
                          std::to_string(end) + " but the file has " + std::to_string(data_size) +
                          " bytes of data");
  }
}

}  // namespace torch_safetensors::format
