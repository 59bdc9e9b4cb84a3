#include "format/header.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "format/header_json.h"
#include "format/no_holes.h"
#include "format/tensor_size.h"
#include "format/text.h"
#include "torch_safetensors/errors.h"

namespace torch_safetensors::format {
namespace {

std::vector<TensorEntry> to_entries(const std::vector<JsonTensor>& tensors, const std::vector<char>& names,
                                    const std::vector<int64_t>& dims) {
  std::vector<TensorEntry> entries;
  entries.reserve(tensors.size());
  for (const JsonTensor& tensor : tensors) {
    entries.push_back({{names.data() + tensor.name_begin, tensor.name_size},
                       tensor.dtype,
                       {dims.data() + tensor.dims_begin, tensor.dims_size},
                       tensor.begin,
                       tensor.end});
  }
  return entries;
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

/// Sorted, not hashed: nobody can choose names that make this slow. Duplicates end up side by side.
std::vector<uint32_t> sort_names(std::span<const TensorEntry> tensors) {
  std::vector<uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](uint32_t a, uint32_t b) { return tensors[a].name < tensors[b].name; };
  if (!std::is_sorted(order.begin(), order.end(), before)) {
    std::sort(order.begin(), order.end(), before);
  }
  const auto same = [&](uint32_t a, uint32_t b) { return tensors[a].name == tensors[b].name; };
  const auto twin = std::adjacent_find(order.begin(), order.end(), same);
  if (twin != order.end()) {
    throw SafetensorError("tensor " + in_quotes(tensors[*twin].name) +
                          ": duplicate name: two tensors of the header have it");
  }
  return order;
}

}  // namespace

Header parse_header(std::string_view json, uint64_t data_size) {
  JsonHeader parsed = parse_header_json(json);
  Header header;
  header.names_ = std::move(parsed.names);
  header.dims_ = std::move(parsed.dims);
  header.tensors_ = to_entries(parsed.tensors, header.names_, header.dims_);
  header.metadata_ = std::move(parsed.metadata);
  sort_by_offset(header.tensors_);
  // Before the offsets are judged: twins mostly overlap too, and that would be the lesser reason.
  header.by_name_ = sort_names(header.tensors_);
  check_no_holes(header.tensors_, data_size);
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
