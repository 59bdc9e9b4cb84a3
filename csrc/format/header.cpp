#include "format/header.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "format/header_json.h"
#include "format/name_order.h"
#include "format/no_holes.h"
#include "format/plain_header.h"
#include "format/tensor_size.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

/// Most headers are as writers write them; RapidJSON takes all others, and knows what is wrong with them.
HeaderContent parse_json(std::string_view json) {
  std::optional<HeaderContent> plain = read_plain_header(json);
  return plain ? std::move(*plain) : parse_header_json(json);
}

/// Files are mostly in order already; tensors without bytes stay in the order of the header.
void sort_by_offset(std::vector<TensorEntry>& tensors) {
  const auto before = [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  };
  if (!std::is_sorted(tensors.begin(), tensors.end(), before)) {
    std::stable_sort(tensors.begin(), tensors.end(), before);
  }
}

void check_sizes(std::span<const TensorEntry> tensors) {
  for (const TensorEntry& tensor : tensors) {
    uint64_t needed = 0;
    try {
      needed = tensor_nbytes(tensor.dtype, tensor.shape);
    } catch (const SafetensorError& error) {
      throw SafetensorError("tensor " + in_quotes(tensor.name) + ": " + error.what());
    }
    if (needed != tensor.nbytes()) {
      throw SafetensorError("tensor " + in_quotes(tensor.name) + ": data_offsets [" +
                            std::to_string(tensor.begin) + ", " + std::to_string(tensor.end) + ") hold " +
                            std::to_string(tensor.nbytes()) + " bytes but " +
                            describe(tensor.dtype, tensor.shape) + " needs " + std::to_string(needed));
    }
  }
}

/// Files are mostly sorted by name, too, or in some stretches.
std::vector<uint32_t> sort_names(std::span<const TensorEntry> tensors) {
  const auto not_before = [](const TensorEntry& a, const TensorEntry& b) { return a.name >= b.name; };
  if (std::adjacent_find(tensors.begin(), tensors.end(), not_before) == tensors.end()) {
    std::vector<uint32_t> order(tensors.size());
    std::iota(order.begin(), order.end(), 0);
    return order;
  }
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorEntry& tensor : tensors) {
    names.push_back(tensor.name);
  }
  NameOrder order = order_names(names);
  if (order.twin) {
    throw SafetensorError("tensor " + in_quotes(*order.twin) +
                          ": duplicate name: two tensors of the header have it");
  }
  return std::move(order.indices);
}

}  // namespace

Header parse_header(std::string_view json, std::optional<uint64_t> data_size) {
  HeaderContent parsed = parse_json(json);
  Header header;
  header.names_ = std::move(parsed.names);
  header.dims_ = std::move(parsed.dims);
  header.tensors_ = std::move(parsed.tensors);
  header.metadata_ = std::move(parsed.metadata);
  sort_by_offset(header.tensors_);
  // Before the offsets are judged: twins mostly overlap too, and that would be the lesser reason.
  header.by_name_ = sort_names(header.tensors_);
  check_no_holes(header.tensors_);
  if (data_size) {
    check_data_size(header.tensors_, *data_size);
  }
  check_sizes(header.tensors_);
  return header;
}

const TensorEntry* Header::find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [&](uint32_t index, std::string_view wanted) { return tensors_[index].name < wanted; });
  return found != by_name_.end() && tensors_[*found].name == name ? &tensors_[*found] : nullptr;
}

}  // namespace torch_safetensors::format
