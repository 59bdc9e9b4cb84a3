#include <algorithm>

#include "modules/model.h"
#include "tensors/byte_range.h"
#include "tensors/save_plan.h"
#include "tensors/shared_storage.h"

namespace torch_safetensors::modules {

std::string save_model(Model model, const std::string& filename, const std::optional<Metadata>& metadata,
                       bool force_contiguous, bool fsync) {
  const tensors::DroppedNames dropped = tensors::find_dropped_names(model.tensors);
  std::optional<format::Metadata> pairs = tensors::to_format(metadata);
  if (!dropped.empty()) {
    // The caller's own entry wins over ours, as in the reference.
    pairs = pairs.value_or(format::Metadata());
    pairs->insert(dropped.begin(), dropped.end());
  }
  std::erase_if(model.tensors, [&](const auto& named) { return dropped.contains(named.name); });
  if (force_contiguous) {
    for (auto& [name, tensor] : model.tensors) {
      if (tensors::has_memory(tensor)) {
        tensor = tensor.detach().contiguous();
      }
    }
  }
  return tensors::SavePlan(std::move(model.tensors), pairs, tensors::Overlap::kWrittenTwice)
      .write_to(filename, fsync);
}

}  // namespace torch_safetensors::modules
