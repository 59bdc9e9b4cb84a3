#include "tensors/shared_storage.h"

#include <ATen/TensorUtils.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "tensors/byte_range.h"
#include "tensors/identity.h"

namespace torch_safetensors::tensors {
namespace {

using Group = std::vector<const NamedTensor*>;

/// Tensors by storage. The reference takes the size into the key, too.
std::vector<Group> group_by_storage(std::span<const NamedTensor> tensors) {
  using Key = std::tuple<c10::DeviceType, c10::DeviceIndex, const void*, size_t>;
  std::map<Key, Group> groups;
  for (const NamedTensor& named : tensors) {
    const at::Tensor& tensor = named.tensor;
    if (has_shareable_memory(tensor)) {
      groups[{tensor.device().type(), tensor.device().index(), tensor.storage().data(),
              tensor.storage().nbytes()}]
          .push_back(&named);
    }
  }
  std::vector<Group> result;
  result.reserve(groups.size());
  for (auto& [key, group] : groups) {
    result.push_back(std::move(group));
  }
  return result;
}

/// True where `tensor.view(-1)` works, which the reference needs to find a tensor's end.
bool is_flattenable(const at::Tensor& tensor) {
  return tensor.numel() == 0 ||
         at::detail::computeStride(tensor.sizes(), tensor.strides(), at::IntArrayRef{tensor.numel()})
             .has_value();
}

/// Splits the tensors of one storage where they do not overlap, as the reference does: it compares each with
/// the one before it alone, so a tensor inside an earlier, longer one can be split off. Nothing where it
/// raises.
std::optional<std::vector<Group>> split_like_reference(const Group& group) {
  if (group.size() == 1) {
    return std::vector<Group>{group};
  }
  std::vector<std::tuple<uint64_t, uint64_t, std::string_view, const NamedTensor*>> areas;
  for (const NamedTensor* named : group) {
    if (!is_flattenable(named->tensor)) {
      return std::nullopt;
    }
    const std::optional<shared::Extent> extent = storage_extent(named->tensor);
    if (!extent) {
      return std::nullopt;
    }
    areas.emplace_back(extent->begin, extent->end, named->name, named);
  }
  std::sort(areas.begin(), areas.end());
  std::vector<Group> parts;
  uint64_t last_end = 0;
  for (const auto& [begin, end, name, named] : areas) {
    if (parts.empty() || begin >= last_end) {
      parts.emplace_back();
    }
    parts.back().push_back(named);
    last_end = end;
  }
  return parts;
}

/// False for an expanded tensor, which may have as many elements as the storage, but repeats some of it.
bool covers_storage(const at::Tensor& tensor) {
  return tensor.is_non_overlapping_and_dense() && tensor.const_data_ptr() == tensor.storage().data() &&
         tensor.nbytes() == tensor.storage().nbytes();
}

/// True for a tensor that could be taken for the kept one, having its dtype and shape, but has other values.
bool is_mistakable(const at::Tensor& tensor, const at::Tensor& kept) {
  return tensor.scalar_type() == kept.scalar_type() && tensor.sizes() == kept.sizes() &&
         !tensor.is_non_overlapping_and_dense();
}

const NamedTensor* smallest_name(const Group& group) {
  return *std::min_element(group.begin(), group.end(), [](auto* a, auto* b) { return a->name < b->name; });
}

void drop_all_but(const NamedTensor* kept, const Group& group, DroppedNames& dropped) {
  for (const NamedTensor* named : group) {
    if (named != kept) {
      dropped.emplace(named->name, kept->name);
    }
  }
}

/// A lazy view has other values than the memory it shares; the reference mistakes the one for the other.
bool has_lazy_view(const Group& group) {
  return std::any_of(group.begin(), group.end(),
                     [](auto* named) { return named->tensor.is_conj() || named->tensor.is_neg(); });
}

/// False, with `dropped` untouched, where the reference raises, would lose a tensor, or would leave it open
/// what a dropped name of the kept one's dtype and shape stands for.
bool drop_like_reference(const Group& group, DroppedNames& dropped) {
  const auto parts = split_like_reference(group);
  if (!parts || has_lazy_view(group)) {
    return false;
  }
  std::vector<const NamedTensor*> kept;
  for (const Group& part : *parts) {
    Group complete;
    std::copy_if(part.begin(), part.end(), std::back_inserter(complete),
                 [](auto* named) { return covers_storage(named->tensor); });
    if (complete.empty()) {
      return false;
    }
    kept.push_back(smallest_name(complete));
    if (std::any_of(part.begin(), part.end(),
                    [&](auto* named) { return is_mistakable(named->tensor, kept.back()->tensor); })) {
      return false;
    }
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    drop_all_but(kept[i], (*parts)[i], dropped);
  }
  return true;
}

void drop_identical(const Group& group, DroppedNames& dropped) {
  std::vector<std::tuple<Identity, std::string_view, const NamedTensor*>> sorted;
  sorted.reserve(group.size());
  for (const NamedTensor* named : group) {
    sorted.emplace_back(named->tensor, named->name, named);
  }
  std::sort(sorted.begin(), sorted.end());
  for (size_t first = 0, i = 1; i < sorted.size(); ++i) {
    if (std::get<Identity>(sorted[i]) == std::get<Identity>(sorted[first])) {
      dropped.emplace(std::get<1>(sorted[i]), std::get<1>(sorted[first]));
    } else {
      first = i;
    }
  }
}

}  // namespace

DroppedNames find_dropped_names(std::span<const NamedTensor> tensors) {
  DroppedNames dropped;
  for (const Group& group : group_by_storage(tensors)) {
    if (!drop_like_reference(group, dropped)) {
      drop_identical(group, dropped);
    }
  }
  return dropped;
}

}  // namespace torch_safetensors::tensors
