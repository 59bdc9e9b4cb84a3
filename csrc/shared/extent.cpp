#include "shared/extent.h"

#include <algorithm>

#include "format/checked.h"

namespace torch_safetensors::shared {
namespace {

bool is_negative(int64_t number) { return number < 0; }

std::string describe(const Layout& layout) {
  return "storage offset " + std::to_string(layout.offset) + ", shape " + in_brackets(layout.sizes) +
         ", strides " + in_brackets(layout.strides);
}

}  // namespace

std::string in_brackets(std::span<const int64_t> numbers) {
  std::string text = "[";
  for (const int64_t number : numbers) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(number);
  }
  return text + "]";
}

std::optional<Extent> extent_of(const Layout& layout) {
  if (layout.sizes.size() != layout.strides.size() || std::ranges::any_of(layout.sizes, is_negative)) {
    return std::nullopt;
  }
  if (std::ranges::count(layout.sizes, 0) > 0) {
    return Extent{0, 0};  // wherever it is said to lie
  }
  if (is_negative(layout.offset) || std::ranges::any_of(layout.strides, is_negative)) {
    return std::nullopt;
  }
  std::optional<uint64_t> last = 0;
  for (size_t dim = 0; last && dim < layout.sizes.size(); ++dim) {
    const auto step = format::checked_mul(layout.sizes[dim] - 1, layout.strides[dim]);
    last = step ? format::checked_add(*last, *step) : std::nullopt;
  }
  const auto count = last ? format::checked_add(*last, 1) : std::nullopt;
  const auto nbytes = count ? format::checked_mul(*count, layout.item_size) : std::nullopt;
  const auto begin = format::checked_mul(layout.offset, layout.item_size);
  const auto end = nbytes && begin ? format::checked_add(*begin, *nbytes) : std::nullopt;
  return end ? std::optional(Extent{*begin, *end}) : std::nullopt;
}

std::optional<std::string> memory_fault(const Layout& layout, const Memory& memory) {
  const std::optional<Extent> extent = extent_of(layout);
  if (extent && (extent->end == 0 || (extent->end <= memory.nbytes && memory.has_data))) {
    return std::nullopt;
  }
  const bool is_null = extent && extent->end <= memory.nbytes;
  return (extent ? "needs " + std::to_string(extent->end) + " bytes" : "lies outside") +
         " of its storage, which has " + (is_null ? "no data, only a size of " : "") +
         std::to_string(memory.nbytes) + " (" + describe(layout) +
         "); if its memory was freed or moved elsewhere, as FSDP and offloading do, gather or materialize it "
         "first";
}

}  // namespace torch_safetensors::shared
