#include "io/stretch.h"

#include <algorithm>
#include <cstring>

namespace torch_safetensors::io {

Stretch::Stretch(std::span<const std::span<const std::byte>> pieces) : pieces_(pieces) {
  ends_.reserve(pieces.size());
  uint64_t end = 0;
  for (const auto& piece : pieces) {
    ends_.push_back(end += piece.size());
  }
}

void Stretch::copy_to(std::span<std::byte> into, uint64_t begin) const {
  auto index = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin());
  for (; !into.empty(); ++index) {
    const auto rest = pieces_[index].last(ends_[index] - begin);
    const size_t count = std::min(rest.size(), into.size());
    if (count > 0) {
      std::memcpy(into.data(), rest.data(), count);
    }
    into = into.subspan(count);
    begin += count;
  }
}

}  // namespace torch_safetensors::io
